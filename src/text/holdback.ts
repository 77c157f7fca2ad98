/** How much of a text's end could still become one of several markers, and so must wait for more text. */

/** Length of the longest suffix of `text` that is a proper prefix of a marker. */
export function heldBack(text: string, markers: readonly string[]): number {
  let longest = 0
  for (const marker of markers) {
    for (let n = Math.min(marker.length - 1, text.length); n > longest; n--) {
      if (text.endsWith(marker.slice(0, n))) {
        longest = n
        break
      }
    }
  }
  return longest
}
