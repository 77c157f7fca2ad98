/** Where requests went, told between gateways of one address: the next round of a session, or the next prompt that begins alike, is sent
 * where its KV is, whichever of them it comes to. */
import type { Routed } from "../router/target.ts"
import type { Siblings } from "../siblings/siblings.ts"
import type { Fleet } from "./fleet.ts"

export const PLACEMENTS = "placements"

export type Placement = readonly [request: Routed, replica: string]

export class ToldPlacements {
  readonly #siblings: Siblings
  #placed: Placement[] = []

  constructor(siblings: Siblings) {
    this.#siblings = siblings
  }

  /** What neither goes on nor has a beginning that others may have is of no use elsewhere. */
  readonly placed = ({ session, promptTokens, prefix }: Routed, replica: string): void => {
    if (session < 0 && prefix.length === 0) return
    if (this.#placed.length === 0) this.#siblings.tellSoon(PLACEMENTS, () => this.#take())
    this.#placed.push([{ session, promptTokens, prefix }, replica])
  }

  hearInto(fleet: Fleet): void {
    this.#siblings.onTold(PLACEMENTS, (placed: readonly Placement[]) => {
      for (const [request, replica] of placed) fleet.placedElsewhere(request, replica)
    })
  }

  #take(): Placement[] {
    const placed = this.#placed
    this.#placed = []
    return placed
  }
}
