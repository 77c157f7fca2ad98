/** Requests of one engine as its core is told of them: SLO, tenant, session, and how far they have come. */
import type { SloClasses } from "../config/slo-classes.ts"
import type { RequestSpec } from "../core/protocol.ts"
import type { Seen, SeenStep } from "../core/seen.ts"
import { sessionNumber } from "../serve/prefix.ts"
import type { Arrived, Begun, EngineMessage } from "../wire/planner/messages.ts"
import type { PlannerTenants } from "./planner-tenants.ts"
import { readSloArguments, type SloMistake } from "./slo-arguments.ts"

/** A request that reached a gateway longer ago than this before it reached the engine came by a clock that is wrong. */
const LONGEST_WAY_US = 3_600_000_000

export interface ReadArrival {
  spec: RequestSpec
  tenant: string
  className: string
  /** Of one that has begun. */
  seen: Seen | null
  mistakes: readonly SloMistake[]
}

export interface ArrivalOptions {
  engine: EngineMessage
  classes: SloClasses
  tenants: PlannerTenants
}

export class ArrivalReader {
  readonly #classes: SloClasses
  readonly #tenants: PlannerTenants
  readonly #tellsThinking: boolean
  /** Most tokens of one request, prompt and output. */
  readonly mostTokens: number

  constructor({ engine, classes, tenants }: ArrivalOptions) {
    const { contextTokens, kvTokens, blockTokens } = engine.limits
    this.#classes = classes
    this.#tenants = tenants
    this.#tellsThinking = engine.tellsThinking
    this.mostTokens = Math.min(contextTokens, Math.floor(kvTokens / blockTokens) * blockTokens)
  }

  /** `nowUs` on the engine's clock, `unixMs` at that time. Null for a prompt that the engine can never hold. */
  read(arrived: Arrived, nowUs: number, unixMs: number): ReadArrival | null {
    const { id, promptTokens, prefix, waitsForGrammar, begun, adapter, allRows } = arrived
    const { resolved, tenant, session, arrivedUnixMs, mistakes } = readSloArguments(
      this.#classes,
      arrived.slo,
    )
    const { class: of, tier, thinking } = resolved
    const room = this.mostTokens - promptTokens
    if (room < 1) return null
    const { number, sessionSalt } = this.#tenants.of(tenant)
    const timed = Number.isFinite(resolved.slo.tpotUs) || Number.isFinite(resolved.slo.thinkingTpotUs)
    const thinks = thinking && timed
    const spec: RequestSpec = {
      ...{ id, app: of.app, tenant: number, promptTokens, waitsForGrammar },
      session: session === null ? -1 : sessionNumber(session, sessionSalt),
      arrivalUs: Math.round(nowUs - ageUsOf(arrived, arrivedUnixMs, unixMs)),
      // vLLM's own bound may be a block beyond what its KV holds.
      maxOutputTokens: Math.min(arrived.maxOutputTokens, room),
      prefix: prefix === undefined ? [] : Array.from(prefix),
      slo: thinks && !this.#tellsThinking ? withOnePace(resolved.slo) : resolved.slo,
      ...{ tier, worth: of.worth, thinking: thinks && this.#tellsThinking },
      ...(adapter !== undefined && { adapter }),
      ...(allRows === true && { allRows }),
    }
    return {
      spec,
      tenant,
      className: of.name,
      seen: begun === undefined ? null : seenOf(begun, nowUs, spec),
      mistakes,
    }
  }
}

/** Since it reached the first gateway, as far as clocks say that that was before the engine had it. */
function ageUsOf({ ageUs }: Arrived, arrivedUnixMs: number | null, unixMs: number): number {
  if (arrivedUnixMs === null) return ageUs
  const sinceUs = (unixMs - arrivedUnixMs) * 1000
  return sinceUs > ageUs && sinceUs < ageUs + LONGEST_WAY_US ? sinceUs : ageUs
}

/** Where thoughts end is not told: what keeps the shorter pace keeps both. */
function withOnePace(slo: RequestSpec["slo"]): RequestSpec["slo"] {
  const tpotUs = Math.min(slo.tpotUs, slo.thinkingTpotUs)
  return { ...slo, tpotUs, thinkingTpotUs: tpotUs }
}

/** null: none of its tokens is out. */
function seenOf(begun: Begun, nowUs: number, { prefix }: RequestSpec): Seen | null {
  const steps = stepsOf(begun, nowUs)
  return steps.length === 0 ? null : { steps, prefix }
}

function stepsOf({ agoUs, tokens, even, thoughtTokens }: Begun, nowUs: number): SeenStep[] {
  const steps: SeenStep[] = []
  let out = 0
  const add = (atUs: number, count: number) => {
    const answeringFrom = thoughtTokens === undefined ? -1 : thoughtTokens - out
    steps.push({
      ...{ atUs: Math.round(atUs), tokens: count },
      answeringFrom: answeringFrom >= 0 && answeringFrom < count ? answeringFrom : -1,
    })
    out += count
  }
  for (let i = 0; i < agoUs.length; i++) {
    const atUs = nowUs - agoUs[i]!
    const count = tokens[i]!
    if (count === 0) continue
    if (!even || i === 0) {
      add(atUs, count)
      continue
    }
    const sinceUs = nowUs - agoUs[i - 1]!
    for (let token = 1; token <= count; token++) add(sinceUs + ((atUs - sinceUs) * token) / count, 1)
  }
  return steps
}
