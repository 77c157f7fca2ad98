/** Where requests went, told between gateways of one address: the next round of a session, or the next prompt that begins alike, is sent
 * where its KV is, whichever of them it comes to. */
import type { Routed } from "../router/target.ts"
import type { Siblings } from "../siblings/siblings.ts"
import { machineUs } from "./backends/shared-load.ts"
import type { Fleet } from "./fleet.ts"
import { LatestPlacements, type PastPlacement, type Placement } from "./latest-placements.ts"

export const PLACEMENTS = "placements"

export class ToldPlacements {
  readonly #siblings: Siblings
  readonly #latest = new LatestPlacements()
  #placed: Placement[] = []

  constructor(siblings: Siblings) {
    this.#siblings = siblings
  }

  /** What neither goes on nor has a beginning that others may have is of no use elsewhere. */
  readonly placed = ({ session, promptTokens, prefix }: Routed, replica: string): void => {
    if (session < 0 && prefix.length === 0) return
    if (this.#placed.length === 0) this.#siblings.tellSoon(PLACEMENTS, () => this.#take())
    const placed: Placement = [{ session, promptTokens, prefix }, replica]
    this.#placed.push(placed)
    this.#latest.add(placed, machineUs())
  }

  hearInto(fleet: Fleet): void {
    this.#siblings.onTold(PLACEMENTS, (placed: readonly Placement[]) => {
      const nowUs = machineUs()
      for (const one of placed) {
        this.#latest.add(one, nowUs)
        fleet.placedElsewhere(...one)
      }
    })
    this.#siblings.has<PastPlacement>(PLACEMENTS, {
      tells: () => this.#latest.all(),
      hears: (past) => {
        for (const [request, replica, atUs] of past)
          if (this.#latest.add([request, replica], atUs)) fleet.placedElsewhere(request, replica, true)
      },
      common: true,
    })
  }

  #take(): Placement[] {
    const placed = this.#placed
    this.#placed = []
    return placed
  }
}
