/**
 * Speaks a text as a tune: a WAV file (PCM, 16 bits, mono, 8 kHz) with a tone of 70 ms for every character, higher
 * along the alphabet, silence for spaces. The first 256 samples hold the bits of the input's digest, too soft to be
 * heard, so that no two inputs give the same file.
 */

const SAMPLES_PER_SECOND = 8_000;
const SAMPLES_PER_CHARACTER = 560;
const TONES = 24;
const PENTATONIC = [0, 2, 4, 7, 9];
const SOFT = 16;

export function speak(text: string, digest: string): Buffer {
  const characters = Array.from(text);
  const samples = Buffer.alloc(2 * (256 + characters.length * SAMPLES_PER_CHARACTER));
  const bytes = Buffer.from(digest, "hex");
  for (let bit = 0; bit < 256; bit++) {
    samples.writeInt16LE((((bytes[bit >> 3] ?? 0) >> (bit & 7)) & 1) === 1 ? SOFT : -SOFT, 2 * bit);
  }
  for (const [index, character] of characters.entries()) {
    const tone = TUNES[(character.toLowerCase().codePointAt(0) ?? 0) % TONES];
    if (!/\s/.test(character)) tone?.copy(samples, 2 * (256 + index * SAMPLES_PER_CHARACTER));
  }
  return Buffer.concat([wavHeader(samples.length), samples]);
}

function wavHeader(dataBytes: number): Buffer {
  const header = Buffer.alloc(44);
  header.write("RIFF", 0, "latin1");
  header.writeUInt32LE(36 + dataBytes, 4);
  header.write("WAVEfmt ", 8, "latin1");
  header.writeUInt32LE(16, 16); // bytes of this chunk
  header.writeUInt16LE(1, 20); // PCM
  header.writeUInt16LE(1, 22); // channels
  header.writeUInt32LE(SAMPLES_PER_SECOND, 24);
  header.writeUInt32LE(2 * SAMPLES_PER_SECOND, 28); // bytes a second
  header.writeUInt16LE(2, 32); // bytes a sample
  header.writeUInt16LE(16, 34); // bits a sample
  header.write("data", 36, "latin1");
  header.writeUInt32LE(dataBytes, 40);
  return header;
}

/** A tone that swells and fades, so that it doesn't click. */
function tune(number: number): Buffer {
  const octave = Math.floor(number / PENTATONIC.length);
  const semitones = 12 * octave + (PENTATONIC[number % PENTATONIC.length] ?? 0);
  const hertz = 130.8 * 2 ** (semitones / 12);
  const samples = Buffer.alloc(2 * SAMPLES_PER_CHARACTER);
  for (let at = 0; at < SAMPLES_PER_CHARACTER; at++) {
    const swell = Math.sin((Math.PI * at) / SAMPLES_PER_CHARACTER);
    samples.writeInt16LE(Math.round(9_000 * swell * Math.sin((2 * Math.PI * hertz * at) / SAMPLES_PER_SECOND)), 2 * at);
  }
  return samples;
}

const TUNES = Array.from({ length: TONES }, (_, number) => tune(number));
