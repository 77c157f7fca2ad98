/** Clients of simulated engines that ask again as soon as they are answered, alone or beside others that come at random times. */
import type { RequestId, RequestSpec, Slo } from "../../../src/core/protocol.ts"
import { chance } from "../../../src/sim/chance.ts"
import type { SimRequest } from "../../../src/sim/world.ts"
import type { Requests } from "./play.ts"

export interface ClientsOptions {
  streams: number
  /** Mean; each from half to one and a half of it. */
  promptTokens: number
  outputTokens: number
  ttftMs: number
  tpotMs: number
  /** Of what streams ask, the share that has no objective. */
  bestEffort: number
  /** A second, besides, each asked once. The streams have no objectives then. */
  chats: number
  durationS: number
  seed: number
}

const NO_OBJECTIVE: Slo = {
  ...{ ttftUs: Infinity, ttftSlowdown: 0, tpotUs: Infinity, thinkingTpotUs: Infinity, maxGapUs: Infinity },
}
/** A client reads an answer and asks again. */
const PAUSE_US = 500
/** Streams begin within. */
const BEGIN_US = 5000
/** What each draw is for. */
const [OF_START, OF_PROMPT, OF_TIER, OF_GAP] = [1, 2, 3, 4]

export class Clients implements Requests {
  readonly first: SimRequest[] = []
  readonly #all = new Map<RequestId, SimRequest>()
  readonly #chats = new Set<RequestId>()
  readonly #options: ClientsOptions
  /** Of the streams; `kept`: their objectives, which not all of them have. */
  readonly answers = { ended: 0, promisable: 0, kept: 0 }
  readonly chats = { total: 0, kept: 0 }

  constructor(options: ClientsOptions) {
    this.#options = options
    const { streams, seed, chats, durationS } = options
    for (let i = 0; i < streams; i++) this.first.push(this.#next(BEGIN_US * chance(seed, i, OF_START)))
    for (let n = 0, atUs = 0; ; n++) {
      atUs -= (1e6 / chats) * Math.log(1 - chance(seed, n, OF_GAP))
      if (!(atUs < durationS * 1e6)) return
      this.first.push(this.#request(atUs, true))
      this.#chats.add(this.first.at(-1)!.spec.id)
    }
  }

  #next(atUs: number): SimRequest {
    const { chats, bestEffort, seed } = this.#options
    const share = chats > 0 ? 1 : bestEffort
    return this.#request(atUs, chance(seed, this.#all.size, OF_TIER) >= share)
  }

  #request(atUs: number, promisable: boolean): SimRequest {
    const { seed, promptTokens, outputTokens, ttftMs, tpotMs } = this.#options
    const id = this.#all.size
    const prompt = promptTokens * (0.5 + chance(seed, id, OF_PROMPT))
    const slo = { ...NO_OBJECTIVE, ttftUs: 1000 * ttftMs, tpotUs: 1000 * tpotMs }
    const spec: RequestSpec = {
      ...{ id, app: promisable ? 0 : 1, session: -1, prefix: [], thinking: false },
      ...{ promptTokens: Math.max(1, Math.round(prompt)), maxOutputTokens: outputTokens },
      ...(promisable ? { slo, tier: "slo" } : { slo: NO_OBJECTIVE, tier: "bestEffort" }),
    }
    const request = { atUs: Math.floor(atUs), spec, outputTokens }
    this.#all.set(id, request)
    return request
  }

  ended(id: RequestId, { attained }: { attained: boolean }): { ok: boolean; counted: boolean } {
    if (this.#chats.has(id)) {
      this.chats.total++
      if (attained) this.chats.kept++
    } else {
      const { tier } = this.#all.get(id)!.spec
      this.answers.ended++
      if (tier === "slo") this.answers.promisable++
      if (tier === "slo" && attained) this.answers.kept++
    }
    return { ok: attained, counted: true }
  }

  follow(id: RequestId, nowUs: number): SimRequest | null {
    return nowUs < this.#options.durationS * 1e6 && !this.#chats.has(id) ? this.#next(nowUs + PAUSE_US) : null
  }
}
