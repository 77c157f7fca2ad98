/** Tenants take turns by what they were served (docs/design.md, Tenants): a virtual clock for each, which begins at its
 * counter and goes on with each of its requests. A tenant's own requests keep the order that they are given in. */
import type { Tenants } from "../learn/tenants.ts"
import type { LiveRequest } from "../request.ts"
import type { PlanningContext } from "./context.ts"
import { sortByKey } from "./due-order.ts"
import type { Work } from "./work.ts"

/** A tenant's clock. */
interface Turn {
  nextAt: number
  perToken: number
}

export class FairOrder {
  #turns = new Map<number, Turn>()
  #keys = new Float64Array(256)

  /** In place. */
  sort(requests: LiveRequest[], context: PlanningContext): void {
    const { tenants } = context
    if (!tenants.several) return
    this.#turns.clear()
    if (requests.length > this.#keys.length) this.#keys = new Float64Array(2 * requests.length)
    for (let i = 0; i < requests.length; i++) {
      const request = requests[i]!
      const turn = this.#turnOf(request.tenant, tenants)
      this.#keys[i] = turn.nextAt
      turn.nextAt += tokensToServe(request, context) * turn.perToken
    }
    if (this.#turns.size > 1) sortByKey(requests, this.#keys)
  }

  /** The first to lose KV stands last in these lists: of the tenant that was served most, its last. */
  sortWork(work: Work, context: PlanningContext): void {
    if (!context.tenants.several) return
    const { bestEffort, byValue } = work
    const promised = byValue.slice(0, byValue.length - bestEffort.length)
    this.sort(promised, context)
    this.sort(bestEffort, context)
    for (let i = 0; i < byValue.length; i++) byValue[i] = promised[i] ?? bestEffort[i - promised.length]!
  }

  /** What was not thought about comes after what is `kept`; each by due time. */
  sortPrefills(prefills: LiveRequest[], kept: ReadonlySet<LiveRequest>, tenants: Tenants): void {
    if (!tenants.several || prefills.length <= kept.size) return
    const others = prefills.filter((request) => !kept.has(request))
    let count = 0
    for (const request of prefills) if (kept.has(request)) prefills[count++] = request
    for (const request of others) prefills[count++] = request
  }

  #turnOf(tenant: number, tenants: Tenants): Turn {
    let turn = this.#turns.get(tenant)
    if (turn === undefined) {
      turn = { nextAt: tenants.level(tenant), perToken: 1 / tenants.weightOf(tenant) }
      this.#turns.set(tenant, turn)
    }
    return turn
  }
}

/** What its tenant will yet be served for it. */
export function tokensToServe(request: LiveRequest, { outputLengths }: PlanningContext): number {
  const { spec, output, owed } = request
  return owed + 2 * outputLengths.remaining(spec.app, output, spec.maxOutputTokens)
}
