/**
 * The models that the emulator runs, one for each kind of output and of end that a caller has to cope with. What they
 * make depends on the input alone. Any deployment `outlast/<model>` runs the model of that name.
 */

import { z } from "zod";
import { digestOf } from "./canonical.ts";
import { defineModel, type Model, type OutputFile } from "./model.ts";
import { noise } from "./noise.ts";
import { drawPicture } from "./picture.ts";
import { speak } from "./sound.ts";
import { writeAbout } from "./writing.ts";

const FILE = { type: "string", format: "uri", title: "Output" };
const FILES = { type: "array", items: { type: "string", format: "uri" }, title: "Output" };
const TEXT = { type: "string", title: "Output" };

const prompt = z.string().min(1).max(10_000).describe("What it is about");
const size = z.int().min(64).max(1_024).default(512);
const seed = z.int().optional().describe("Another number, another result");

function picture(text: string, width: number, height: number, digest: string, number = 0): OutputFile {
  return {
    name: `out-${number}.png`,
    contentType: "image/png",
    content: {
      kind: "whole",
      make: () => drawPicture({ text, width, height, digest: digestOf([digest, number]) }),
    },
  };
}

function speech(text: string, digest: string): OutputFile {
  return { name: "speech.wav", contentType: "audio/wav", content: { kind: "whole", make: () => speak(text, digest) } };
}

const models: readonly Model[] = [
  defineModel({
    name: "text",
    description: "Writes about a prompt: one string, or the list of strings that a language model streams",
    input: z.object({ prompt, seed, as: z.enum(["string", "list"]).default("string") }),
    outputSchema: { title: "Output" },
    output(input, _urls, digest) {
      const pieces = writeAbout(input.prompt, digest);
      return input.as === "list" ? pieces : pieces.join("");
    },
  }),

  defineModel({
    name: "picture",
    description: "A picture that shows its prompt",
    input: z.object({ prompt, width: size, height: size, seed }),
    outputSchema: FILE,
    files: (input, digest) => [picture(input.prompt, input.width, input.height, digest)],
    output: (_input, urls) => urls[0],
  }),

  defineModel({
    name: "pictures",
    description: "A set of pictures of one prompt",
    input: z.object({ prompt, width: size, height: size, seed, num_outputs: z.int().min(1).max(4).default(4) }),
    outputSchema: FILES,
    files: (input, digest) =>
      Array.from({ length: input.num_outputs }, (_, number) =>
        picture(input.prompt, input.width, input.height, digest, number),
      ),
    output: (_input, urls) => urls,
  }),

  defineModel({
    name: "speech",
    description: "A text as a tune",
    input: z.object({ text: z.string().min(1).max(1_000), seed }),
    outputSchema: FILE,
    files: (input, digest) => [speech(input.text, digest)],
    output: (_input, urls) => urls[0],
  }),

  defineModel({
    name: "large",
    description: "A file as large as you like",
    input: z.object({ bytes: z.int().min(0).max(1_099_511_627_776), seed }),
    outputSchema: FILE,
    files: (input, digest) => [
      {
        name: "out.bin",
        contentType: "application/octet-stream",
        content: {
          kind: "stream",
          sizeBytes: input.bytes,
          read: (fromByte, toByte) => noise(digest, fromByte, toByte),
        },
      },
    ],
    output: (_input, urls) => urls[0],
  }),

  defineModel({
    name: "nested",
    description: "Files, text, numbers, nulls and a small inline picture, one inside the other",
    input: z.object({ prompt, seed }),
    outputSchema: { type: "object", title: "Output" },
    files: (input, digest) => [picture(input.prompt, 256, 256, digest), speech(input.prompt.slice(0, 200), digest)],
    output(input, [pictureUrl, speechUrl], digest) {
      const inline = drawPicture({ text: input.prompt, width: 64, height: 64, digest });
      return {
        title: input.prompt,
        scores: [0.25, 1, -3, 1e-7],
        checked: true,
        missing: null,
        empty: {},
        media: {
          pictures: [{ url: pictureUrl, caption: writeAbout(input.prompt, digest).join("") }, null],
          speech: speechUrl,
          thumbnail: `data:image/png;base64,${inline.toString("base64")}`,
        },
      };
    },
  }),

  defineModel({
    name: "halting",
    description: "Makes pictures one by one, and fails after some of them: what it made until then stays",
    input: z.object({
      prompt,
      seed,
      num_outputs: z.int().min(1).max(4).default(4),
      made: z.int().min(0).max(3).default(2),
    }),
    outputSchema: FILES,
    files: (input, digest) =>
      Array.from({ length: input.num_outputs }, (_, number) => picture(input.prompt, 256, 256, digest, number)),
    output: (_input, urls) => urls,
    rest: (input, urls) => urls.slice(0, input.made),
    failure: () => ({ error: "CUDA out of memory (E1001)" }),
  }),

  defineModel({
    name: "forgetful",
    description: "Succeeds, and loses what it made: all of it, or some of its pictures",
    input: z.object({
      prompt,
      seed,
      num_outputs: z.int().min(1).max(4).default(4),
      kept: z.int().min(0).max(4).default(0),
    }),
    outputSchema: FILES,
    files: (input, digest) =>
      Array.from({ length: input.num_outputs }, (_, number) => picture(input.prompt, 256, 256, digest, number)),
    output: (input, urls) => (input.kept === 0 ? null : urls.map((url, at) => (at < input.kept ? url : null))),
  }),

  defineModel({
    name: "slow",
    description: "Runs for as long as it is told to",
    input: z.object({ prompt: prompt.default("slow"), seconds: z.number().min(0).max(1_800), seed }),
    outputSchema: TEXT,
    output: (input, _urls, digest) => writeAbout(input.prompt, digest).join(""),
    runMs: (input) => Math.round(input.seconds * 1_000),
  }),

  defineModel({
    name: "moderated",
    description: "Refuses every prompt, as a content filter does",
    input: z.object({ prompt, seed }),
    outputSchema: TEXT,
    output: () => null,
    failure: () => ({ error: "The input or output was flagged as sensitive, try another prompt (E005)" }),
  }),

  defineModel({
    name: "flaky",
    description: "Fails some of the time, and then gives no reason: its error is null",
    input: z.object({ prompt, seed, failure_rate: z.number().min(0).max(1).default(0.5) }),
    outputSchema: TEXT,
    output: (input, _urls, digest) => writeAbout(input.prompt, digest).join(""),
    failure: (input, luck) => (luck < input.failure_rate ? { error: null } : null),
  }),
];

export const MODELS: ReadonlyMap<string, Model> = new Map(models.map((model) => [model.fullName, model]));
export const VERSIONS: ReadonlyMap<string, Model> = new Map(models.map((model) => [model.versionId, model]));
