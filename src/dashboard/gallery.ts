/** Kept outputs as a person wants to see them: pictures, films and sounds as such, everything else by its name. */

import { fileNameOf } from "../batches/file-links.ts";
import { bytes, number } from "../core/figures.ts";
import { type ItemId, parseItemId } from "../core/naming.ts";
import type { KeptOutput, Receipt } from "../core/receipt.ts";
import { type Html, html } from "./html.ts";
import { excerpt } from "./showing.ts";

/** The address of a kept file, which opens it for whoever looks at the page. */
export type FileUrl = (item: ItemId, key: string) => string;

/** What a browser shows without running it; an SVG or a page is a file like any other. */
const PICTURE = /^image\/(?:png|jpeg|gif|webp|avif)$/;
const MAX_TILES = 24;
const MAX_NAME = 60;

/** The latest outputs of a batch: a tile for each item, which leads to it. */
export function gallery(receipts: readonly Receipt[], fileUrl: FileUrl): Html {
  return html`<ul class="gallery">${receipts.slice(0, MAX_TILES).map((receipt) => itemTile(receipt, fileUrl))}</ul>`;
}

function itemTile(receipt: Receipt, fileUrl: FileUrl): Html | null {
  const [first, ...more] = receipt.outputs;
  if (first === undefined) return null;
  const name = receipt.id === null ? `item ${number(receipt.index)}` : excerpt(receipt.id, MAX_NAME);
  const caption = html`<span class="caption"><bdi>${name}</bdi>${more.length > 0 ? html` <span class="more">+${more.length}</span>` : null}</span>`;
  const preview = previewOf(receipt, first, fileUrl);
  const href = `/items/${receipt.item}`;
  // What is clicked by itself can't stand inside a link.
  const tile = isPlayed(first)
    ? html`${preview}<a href="${href}">${caption}</a>`
    : html`<a href="${href}">${preview}${caption}</a>`;
  return html`<li class="tile" id="o-${receipt.item}">${tile}</li>`;
}

/** The outputs of one item, each as large as it likes. */
export function outputTiles(receipt: Receipt, fileUrl: FileUrl): Html {
  return html`<ul class="gallery large">${receipt.outputs.slice(0, MAX_TILES).map((output) => {
    const url = fileUrl(itemOf(receipt), output.key);
    const caption = html`<span class="caption">${fileNameOf(output.key)} <span class="quiet">${bytes(output.bytes)}</span></span>`;
    const preview = previewOf(receipt, output, fileUrl);
    return html`<li class="tile">${
      isPlayed(output)
        ? html`${preview}<a href="${url}">${caption}</a>`
        : html`<a href="${url}">${preview}${caption}</a>`
    }</li>`;
  })}</ul>${
    receipt.outputs.length > MAX_TILES
      ? html`<p class="quiet">… and ${number(receipt.outputs.length - MAX_TILES)} more.</p>`
      : null
  }`;
}

function isPlayed({ content_type: type }: KeptOutput): boolean {
  return type.startsWith("audio/") || type.startsWith("video/");
}

function previewOf(receipt: Receipt, output: KeptOutput, fileUrl: FileUrl): Html {
  const url = fileUrl(itemOf(receipt), output.key);
  const type = output.content_type.split(";", 1)[0]?.trim().toLowerCase() ?? "";
  const name = fileNameOf(output.key);
  if (PICTURE.test(type)) {
    return html`<img class="preview" src="${url}" alt="${name} of item ${receipt.index}" loading="lazy" decoding="async">`;
  }
  if (type.startsWith("video/")) {
    return html`<video class="preview" src="${url}" controls preload="metadata" aria-label="${name}"></video>`;
  }
  if (type.startsWith("audio/")) {
    return html`<span class="preview sound"><audio src="${url}" controls preload="none" aria-label="${name}"></audio></span>`;
  }
  return html`<span class="preview file"><b>${extensionOf(name)}</b><span>${excerpt(type, MAX_NAME)}</span><span class="quiet">${bytes(output.bytes)}</span></span>`;
}

/** Item ids in receipts are ours: made from batch and index. */
function itemOf({ item }: Receipt): ItemId {
  if (parseItemId(item) === null) throw new TypeError(`a receipt names no item: ${item}`);
  return item as ItemId;
}

function extensionOf(name: string): string {
  return name.slice(name.lastIndexOf(".") + 1);
}
