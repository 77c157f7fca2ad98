/** Jobs as a backend's twin knows them: how long their prompts are, and how much of them the engine may have in its cache, as
 * far as was learnt of it. */
import type { Job } from "../../replica/host.ts"
import type { TwinSpec } from "../twin.ts"
import type { ReadUsage } from "./answer-reader.ts"
import { CacheHopes } from "./cache-hopes.ts"
import { PromptSizes } from "./prompt-sizes.ts"

/** How much of a prompt an engine had in its cache, of a session's round. */
export interface CacheSeen {
  app: number
  session: string | null
  seen: { prompt: number; cached: number; output: number }
}

/** Of all backends: what others were told of a request outlives a backend that comes back as a new one. */
let ids = 0

export class JobSpecs {
  readonly #sizes = new PromptSizes()
  readonly #cache = new CacheHopes()
  /** Prompts are computed elsewhere: all but their last token is there when they come. */
  readonly #isPrefilled: boolean

  constructor(isPrefilled: boolean) {
    this.#isPrefilled = isPrefilled
  }

  /** With an id of its own. */
  of({ generation, ageUs }: Job, contextTokens: number, nowUs: number): TwinSpec {
    const { slo, maxTokens, session, prompt } = generation
    const promptTokens = this.#sizes.tokens(prompt)
    const { app } = slo.class
    const cachedTokens = this.#isPrefilled ? promptTokens - 1 : this.#cache.tokens(app, session, promptTokens)
    return {
      ...{ id: ++ids, app, session: -1, arrivalUs: nowUs - ageUs, prefix: [] },
      ...{ promptTokens, cachedTokens },
      maxOutputTokens: Math.min(maxTokens ?? contextTokens, contextTokens),
      ...{ slo: slo.slo, tier: slo.tier, thinking: slo.thinking },
    }
  }

  /** The engine counted so in a job that it computed as a whole. Answers what that says of its cache. */
  learn(
    { generation }: Job,
    { promptTokens, cachedTokens, completionTokens: output }: ReadUsage,
  ): CacheSeen | null {
    if (promptTokens === null) return null
    const { prompt, slo, session } = generation
    this.#sizes.counted(prompt, promptTokens)
    if (cachedTokens === null) return null
    const seen = {
      ...{ app: slo.class.app, session },
      seen: { prompt: promptTokens, cached: cachedTokens, output },
    }
    this.saw(seen)
    return seen
  }

  saw({ app, session, seen }: CacheSeen): void {
    this.#cache.saw(app, session, seen)
  }
}
