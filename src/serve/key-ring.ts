/** API keys of a server: which one a request has, what that may ask for, and how much of it in a minute. */
import { timingSafeEqual } from "node:crypto"
import { ANY_OBJECTIVES, type ApiKeyConfig, digestOf } from "../config/api-keys.ts"
import type { TenantConfig } from "../config/tenants.ts"
import { type UserError, userError } from "../errors.ts"
import type { ResolvedSlo } from "../replica/generation.ts"
import { checkAsked } from "./asked-objectives.ts"
import { type RateCounter, RateWindow, renewedWindow } from "./rate-window.ts"

/** Requests that may ask for objectives of their own: all, those with a key, or none. */
export type ObjectivesFrom = "all" | "keys" | "none"

type Headers = Readonly<Record<string, string | string[] | undefined>>

/** Counts what a key takes of so much a minute; `before`: what did so until now. */
export type CountRates = (of: CountedKey, limit: number, before: RateCounter | undefined) => RateCounter

/** What is counted of which key. */
export interface CountedKey {
  key: string
  what: "requests" | "tokens"
}

const countHere: CountRates = (_of, limit, before) =>
  renewedWindow(limit, before instanceof RateWindow ? before : undefined)

export class ApiKey {
  readonly config: ApiKeyConfig
  readonly requests: RateCounter | null
  readonly tokens: RateCounter | null

  /** `before`: the key of its name until now, of which what was counted goes on to count. */
  constructor(config: ApiKeyConfig, before: ApiKey | undefined, count: CountRates = countHere) {
    const counter = (what: CountedKey["what"], limit: number | null) =>
      limit === null ? null : count({ key: config.name, what }, limit, before?.[what] ?? undefined)
    this.config = config
    this.requests = counter("requests", config.requestsPerMinute)
    this.tokens = counter("tokens", config.tokensPerMinute)
  }
}

export class KeyRing {
  #byDigest = new Map<string, ApiKey>()
  readonly #count: CountRates | undefined

  /** `count`: left out, in this process. */
  constructor(keys: readonly ApiKeyConfig[] = [], tenants: readonly TenantConfig[] = [], count?: CountRates) {
    this.#count = count
    this.renew(keys, tenants)
  }

  /** These keys, and those of tenants, in place of all before. */
  renew(keys: readonly ApiKeyConfig[], tenants: readonly TenantConfig[]): void {
    const before = new Map([...this.#byDigest.values()].map((key) => [key.config.name, key]))
    const all = [...keys, ...tenants.flatMap(plainKeys)]
    this.#byDigest = new Map(
      all.map((config) => [config.digest, new ApiKey(config, before.get(config.name), this.#count)]),
    )
  }

  get size(): number {
    return this.#byDigest.size
  }

  /** Of `authorization: Bearer …` (OpenAI's clients) or `x-api-key` (Anthropic's); null where there is none. Throws UserError for
   * one that was never given out. */
  find(headers: Headers): ApiKey | null {
    const text = keyIn(headers)
    if (text === null) return null
    // What is looked up is a digest: how long that takes says nothing of a key.
    const digest = digestOf(text)
    const found = this.#byDigest.get(digest)
    if (found === undefined) throw userError("invalid_api_key")
    if (!timingSafeEqual(Buffer.from(found.config.digest, "hex"), Buffer.from(digest, "hex")))
      throw userError("invalid_api_key")
    return found
  }
}

function plainKeys({ name: tenant, keys }: TenantConfig): ApiKeyConfig[] {
  const free = { classes: null, tightest: ANY_OBJECTIVES, objectives: null, weight: null }
  const rates = { requestsPerMinute: null, tokensPerMinute: null }
  return keys.map((key, i) => ({
    name: `${tenant} ${i + 1}`,
    tenant,
    digest: digestOf(key),
    ...free,
    ...rates,
  }))
}

function keyIn(headers: Headers): string | null {
  const bearer = String(headers.authorization ?? "").trim()
  const given = /^Bearer\s+(\S+)$/i.exec(bearer)?.[1] ?? String(headers["x-api-key"] ?? "").trim()
  return given === "" ? null : given
}

/** Throws UserError for a class or an objective that a request may not ask for. */
export function checkAllowed(key: ApiKey | null, from: ObjectivesFrom, slo: ResolvedSlo): void {
  const { classes = null, tightest = ANY_OBJECTIVES, objectives = null } = key?.config ?? {}
  if (classes !== null && !classes.includes(slo.class.name))
    throw userError("class_not_allowed", { name: slo.class.name, available: classes.join(", ") })
  const may = objectives ?? (from === "all" || (from === "keys" && key !== null))
  checkAsked(slo, may ? tightest : null)
}

/** The refusal of a request that is too many. */
export function rateRefusal(
  name: string,
  what: "requests" | "tokens",
  window: RateCounter,
  waitMs: number,
): UserError {
  const seconds = Math.ceil(waitMs / 1000)
  return userError("rate_limit_exceeded", { name, what, limit: window.limit, seconds }, { retryMs: waitMs })
}
