/** Names of files that are copied out of a bucket. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { type Named, openFileNames } from "../../src/cli/file-names.ts";

const file = (id: string | null, index: number, n?: number, key = "batches/b/items/00000000/output-0.png"): Named => ({
  id,
  index,
  key,
  ...(n !== undefined && { n }),
});

test.each([
  ["the row's id", file("cat-7", 6), "cat-7.png"],
  ["the index where there is no id", file(null, 6), "00000006.png"],
  ["a number behind it where an item has several", file("cat", 6, 3), "cat-3.png"],
  ["no extension where the object has none", file("cat", 6, undefined, "batches/b/o"), "cat.png".slice(0, 3)],
  ["separators", file("../../etc/passwd", 6), "_./.._etc_passwd.png".replace("/", "_")],
  ["backslashes, and what Windows forbids", file('a\\b:c*d?e"f<g>h|i', 6), "a_b_c_d_e_f_g_h_i.png"],
  ["control characters and their like", file("a\u0007b\u202ec\u200bd", 6), "a_b_c_d.png"],
  ["hidden files", file(".bashrc", 6), "_bashrc.png"],
  ["what a command would take for an option", file("-rf", 6), "_rf.png"],
  ["devices", file("CON", 6), "_CON.png"],
  ["devices with an ending", file("nul.txt", 6), "_nul.txt.png"],
  ["dots and spaces at the end", file("cat. . ", 6), "cat_.png"],
  ["nothing but spaces", file("   ", 6), "__.png"],
  ["text of other scripts stays", file("狐と猫", 6), "狐と猫.png"],
  ["long ones are cut, whole characters kept", file("é".repeat(255), 6), `${"é".repeat(75)}.png`],
])("%s", (_title, named, name) => {
  expect(openFileNames()(named)).toBe(name);
});

test("no two are the same, even where case doesn't count", () => {
  const nameOf = openFileNames();
  const names = [file("Cat", 0), file("cat", 1), file("a/b", 2), file("a:b", 3), file("x-1", 4), file("x", 5, 1)].map(
    nameOf,
  );
  expect(names).toEqual(["Cat.png", "cat~00000001.png", "a_b.png", "a_b~00000003.png", "x-1.png", "x~00000005-1.png"]);
});

test("whatever the ids, names are different, safe, and the same each time", () => {
  const ids = fc.uniqueArray(fc.string({ unit: "binary", minLength: 1, maxLength: 255 }), { maxLength: 50 });
  fc.assert(
    fc.property(ids, (some) => {
      const names = some.map((id, index) => file(id, index)).map(openFileNames());
      expect(new Set(names.map((name) => name.toLowerCase())).size).toBe(names.length);
      for (const name of names) {
        expect(name).not.toMatch(/[/\\\p{Cc}]|^[.-]|^\s|[.\s]$/u);
        expect(Buffer.byteLength(name)).toBeLessThan(200);
      }
      expect(some.map((id, index) => file(id, index)).map(openFileNames())).toEqual(names);
    }),
  );
});

test("an id that looks like the name of another item's file takes nobody's place", () => {
  const nameOf = openFileNames();
  const ids = ["x_~00000002", "x_", "x/"];
  expect(ids.map((id, index) => nameOf({ id, index, key: "batches/b/items/0/output-0.png" }))).toEqual([
    "x_~00000002.png",
    "x_.png",
    "x_~~00000002.png",
  ]);
});
