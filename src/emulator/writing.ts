/** Writes a few sentences about a prompt. Always the same ones for the same digest. */

const OPENINGS = ["In short,", "Put simply,", "Seen from here,", "After some thought,", "To begin with,"];
const VERDICTS = [
  "is worth a second look",
  "says more than it seems to",
  "leaves one question open",
  "holds together well",
];
const CLOSINGS = [
  "Nothing more is known.",
  "The rest follows from it.",
  "Ask again tomorrow.",
  "That is all there is.",
];

/** In pieces, as a language model streams them; joined, they are the text. */
export function writeAbout(prompt: string, digest: string): readonly string[] {
  const bytes = Buffer.from(digest, "hex");
  const pick = (from: readonly string[], byte: number): string => from[(bytes[byte] ?? 0) % from.length] ?? "";
  return [
    `${pick(OPENINGS, 0)} `,
    `"${prompt}" `,
    `${pick(VERDICTS, 1)}. `,
    `It has ${prompt.split(/\s+/).filter(Boolean).length} words and the mark ${digest.slice(0, 8)}. `,
    pick(CLOSINGS, 2),
  ];
}
