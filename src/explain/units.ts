/** Times as they are shown. */

/** In ms, to the µs. */
export function msOf(us: number): number {
  return Math.round(us) / 1000
}
