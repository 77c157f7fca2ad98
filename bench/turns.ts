/** All in turn, each round beginning with another: what comes of the place in a round comes to each. */
export function inTurn<T>(all: readonly T[], round: number): T[] {
  return all.map((_, i) => all[(i + round) % all.length]!)
}
