/** Masks on rows of logits. */

/** Takes from a row, in place, what a mask does not allow: 32 tokens at a time where it can. */
export function applyMask(row: Float32Array, mask: Int32Array): void {
  for (let i = 0; i < mask.length; i++) {
    const word = mask[i]!
    if (word === -1) continue
    const from = 32 * i
    const end = Math.min(from + 32, row.length)
    if (word === 0) row.fill(-Infinity, from, end)
    else for (let bit = 0; bit < end - from; bit++) if (!(word & (1 << bit))) row[from + bit] = -Infinity
  }
}

export function allows(mask: Int32Array, token: number): boolean {
  return (mask[token >> 5]! & (1 << (token & 31))) !== 0
}

export function allowsNothing(mask: Int32Array): boolean {
  return mask.every((word) => word === 0)
}

/** Whether anything but these tokens may come. */
export function allowsOthers(mask: Int32Array, tokens: readonly number[]): boolean {
  return mask.some((word, i) => {
    for (const token of tokens) if (token >> 5 === i) word &= ~(1 << (token & 31))
    return word !== 0
  })
}
