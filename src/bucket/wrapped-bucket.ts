/** A bucket some of whose methods do more than its own. */

import type { Bucket } from "./bucket.ts";

export function wrappedBucket(bucket: Bucket, own: Partial<Bucket>): Bucket {
  return {
    url: bucket.url,
    urlOf: (key) => bucket.urlOf(key),
    put: (key, body, options) => bucket.put(key, body, options),
    putStream: (key, body, options) => bucket.putStream(key, body, options),
    putOnce: (key, body, options) => bucket.putOnce(key, body, options),
    get: (key, options) => bucket.get(key, options),
    getRange: (key, start, length) => bucket.getRange(key, start, length),
    getStream: (key, range) => bucket.getStream(key, range),
    head: (key) => bucket.head(key),
    list: (prefix, options) => bucket.list(prefix, options),
    delete: (key) => bucket.delete(key),
    close: () => bucket.close(),
    ...own,
  };
}
