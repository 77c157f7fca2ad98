/** Decodes by app and TPOT: those of one tier verify equally many tokens. TPOTs of which there are many count as few,
 * as the time of a choice grows with the tiers. */
import type { LiveRequest } from "../../request.ts"
import type { PlanningContext } from "../context.ts"
import type { SpeculationTier } from "./useful-rate.ts"

/** Beyond so many tiers TPOTs that are close share one. Apps never do: more apps than this have a tier each, or two
 * where some requests have no TPOT. */
export const MOST_TIERS = 12
/** Shared tiers count TPOTs in steps of this ratio, rounded down: as some end and others come, a tier's tightest TPOT
 * would else be another at every decision, and call for a new choice. */
const STEP = 1.05
/** Steps between the smallest and the largest TPOT that there can be. */
const MOST_STEPS = 1024

export interface Tier extends SpeculationTier {
  app: number
  /** Which TPOTs it is for; see `cellOf`. */
  cell: number
}

/** The requests that a choice is for. */
export interface Drafting {
  decodes: readonly LiveRequest[]
  /** Only expected: they make sure that their tier has a length, and take no room yet. */
  expected: readonly LiveRequest[]
}

export class Tiers {
  readonly list: Tier[] = []
  /** Steps of TPOT in a tier; 0: a tier for every TPOT. */
  #width = 0

  constructor(requests: Drafting, context: PlanningContext) {
    while (!this.#fill(requests, context)) this.#width = Math.max(1, Math.ceil(this.#width * 1.5))
  }

  /** Place in the list of the tier that such a request belongs to; −1: there is none. */
  placeOf(app: number, tpotUs: number): number {
    return this.#find(app, this.#cellOf(tpotUs))
  }

  /** The tier here that is for the same requests as `tier` of `others`, at the same pace. */
  matching(tier: Tier, others: Tiers): Tier | undefined {
    const own = this.list[this.#find(tier.app, tier.cell)]
    return this.#width === others.#width && own?.tpotUs === tier.tpotUs ? own : undefined
  }

  /** Whether they have become few enough. */
  #fill({ decodes, expected }: Drafting, context: PlanningContext): boolean {
    const most = this.#width < MOST_STEPS ? MOST_TIERS : Infinity
    this.list.length = 0
    for (const request of decodes) {
      const tier = this.#tierOf(request, context)
      tier.count++
      tier.contextTokens += (request.known - tier.contextTokens) / tier.count
      if (this.list.length > most) return false
    }
    for (const request of expected) {
      const tier = this.#tierOf(request, context)
      if (this.list.length > most) return false
      if (tier.count > 0) continue
      tier.count = 1
      tier.contextTokens = request.known
    }
    return true
  }

  #tierOf(request: LiveRequest, context: PlanningContext): Tier {
    const { app } = request.spec
    const tpotUs = this.#width === 0 ? request.tpotUs : steppedUs(request.tpotUs)
    const cell = this.#cellOf(request.tpotUs)
    const known = this.list[this.#find(app, cell)]
    if (known !== undefined) {
      // What the tightest can wait is what all of them can.
      if (tpotUs < known.tpotUs) known.tpotUs = tpotUs
      return known
    }
    const acceptance = context.acceptance.of(app)
    const hitRate = context.acceptance.hitRate(app)
    const tier = { app, cell, tpotUs, acceptance, hitRate, count: 0, contextTokens: 0 }
    this.list.push(tier)
    return tier
  }

  /** One by one: they are few. */
  #find(app: number, cell: number): number {
    for (let i = 0; i < this.list.length; i++) {
      const tier = this.list[i]!
      if (tier.cell === cell && tier.app === app) return i
    }
    return -1
  }

  #cellOf(tpotUs: number): number {
    return this.#width === 0 ? tpotUs : Math.floor(stepOf(tpotUs) / this.#width)
  }
}

/** A TPOT that has been rounded down has the same step again. */
function stepOf(tpotUs: number): number {
  return Math.floor(Math.log(tpotUs) / Math.log(STEP) + 1e-9)
}

function steppedUs(tpotUs: number): number {
  return Math.min(tpotUs, STEP ** stepOf(tpotUs))
}
