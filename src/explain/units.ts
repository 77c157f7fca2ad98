/** Times as they are shown. */

/** In ms, to the µs. */
export function msOf(us: number): number {
  return Math.round(us) / 1000
}

/** As one says it: of ten milliseconds and more no fractions. */
export function saidMs(us: number): string {
  const ms = us / 1000
  return `${Math.abs(ms) >= 10 ? Math.round(ms) : Math.round(ms * 10) / 10}`
}
