/**
 * The SDK's client, set up so that every request ends in time and every store is spoken to in a way that it takes.
 *
 * AWS gets the SDK's defaults, which send a CRC32 with every body. A custom endpoint gets checksums only where an operation
 * demands them, because many stores refuse the SDK's streamed ones; there, as everywhere, the signature covers the SHA-256
 * of what we send over plain http.
 */

import { S3Client, type S3ClientConfig } from "@aws-sdk/client-s3";
import { MINUTE, SECOND } from "../core/time.ts";
import { BucketError } from "./bucket.ts";
import type { ObjectSettings } from "./object-settings.ts";

export type S3Settings = {
  /** Another store than AWS: `http://host:port` or https, with a path if it has one. */
  readonly endpoint?: string | undefined;
  /** Where unset, the SDK's own (AWS_REGION, profile); with an endpoint at last `us-east-1`. */
  readonly region?: string | undefined;
  /** Where unset, the SDK's own chain: environment, profile, container, machine. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  /** Checksums with every body. Where unset: yes on AWS, no with an endpoint. */
  readonly checksums?: boolean | undefined;
  /** How long one attempt of a request may take, and how long a socket may be silent. */
  readonly requestTimeoutMs?: number | undefined;
  /** First and later attempts of one request. */
  readonly attempts?: number | undefined;
  /** How objects are to be stored. */
  readonly objects?: ObjectSettings | undefined;
  /** How long all attempts of one request may take together, where no stream is written. Twice the timeout where unset. */
  readonly deadlineMs?: number | undefined;
};

/** What is in flight over the network from one process; as many sockets are kept open. */
const SOCKETS = 64;

/** Throws BucketError where AWS is meant and no region is set. */
export async function openS3Client(settings: S3Settings): Promise<S3Client> {
  const client = new S3Client(clientConfig(settings));
  try {
    await client.config.region();
    return client;
  } catch (error) {
    client.destroy();
    if (settings.endpoint === undefined) {
      throw new BucketError("failed", "no AWS region is set; set AWS_REGION to the bucket's region", error);
    }
    // Stores other than AWS take any region, as long as both sides sign with the same.
    return new S3Client(clientConfig({ ...settings, region: "us-east-1" }));
  }
}

function clientConfig(settings: S3Settings): S3ClientConfig {
  const { endpoint, region, credentials } = settings;
  const checksums = checksumsOf(settings);
  const timeoutMs = settings.requestTimeoutMs ?? MINUTE;
  const silent = (): void => {};
  return {
    ...(region === undefined ? {} : { region }),
    ...(credentials === undefined ? {} : { credentials }),
    ...(endpoint === undefined ? { followRegionRedirects: true } : { endpoint, forcePathStyle: true }),
    requestChecksumCalculation: checksums ? "WHEN_SUPPORTED" : "WHEN_REQUIRED",
    responseChecksumValidation: checksums ? "WHEN_SUPPORTED" : "WHEN_REQUIRED",
    // Some stores never answer `Expect: 100-continue`, which costs six seconds for every body over 2 MB.
    ...(endpoint === undefined ? {} : { expectContinueHeader: false }),
    maxAttempts: settings.attempts ?? 4,
    requestHandler: {
      connectionTimeout: Math.min(5 * SECOND, timeoutMs),
      requestTimeout: timeoutMs,
      throwOnRequestTimeout: true,
      socketTimeout: timeoutMs,
      httpAgent: { keepAlive: true, maxSockets: SOCKETS },
      httpsAgent: { keepAlive: true, maxSockets: SOCKETS },
      logger: { debug: silent, info: silent, warn: silent, error: silent },
    },
  };
}

/** Whether checksums go with every body. */
export function checksumsOf({ checksums, endpoint }: S3Settings): boolean {
  return checksums ?? endpoint === undefined;
}
