/** API keys of a server: which one a request has, what that may ask for, and how much of it in a minute. */
import { timingSafeEqual } from "node:crypto"
import { ANY_OBJECTIVES, type ApiKeyConfig, digestOf } from "../config/api-keys.ts"
import type { TenantConfig } from "../config/tenants.ts"
import { type UserError, userError } from "../errors.ts"
import type { ResolvedSlo } from "../replica/generation.ts"
import { checkAsked } from "./asked-objectives.ts"
import { RateWindow } from "./rate-window.ts"

/** Requests that may ask for objectives of their own: all, those with a key, or none. */
export type ObjectivesFrom = "all" | "keys" | "none"

type Headers = Readonly<Record<string, string | string[] | undefined>>

export class ApiKey {
  readonly config: ApiKeyConfig
  readonly requests: RateWindow | null
  readonly tokens: RateWindow | null

  /** `before`: the key of its name until now, of which what was counted goes on to count. */
  constructor(config: ApiKeyConfig, before: ApiKey | undefined) {
    this.config = config
    this.requests = windowOf(config.requestsPerMinute, before?.requests)
    this.tokens = windowOf(config.tokensPerMinute, before?.tokens)
  }
}

function windowOf(limit: number | null, before: RateWindow | null | undefined): RateWindow | null {
  if (limit === null) return null
  if (before?.limit === limit) return before
  const window = new RateWindow(limit)
  const nowMs = performance.now()
  const used = before?.used(nowMs) ?? 0
  // Of another bound: all that counts still does, as if it had just come.
  if (used > 0) {
    const slot = window.take(0, nowMs)
    window.add(used, slot!)
  }
  return window
}

export class KeyRing {
  #byDigest = new Map<string, ApiKey>()

  constructor(keys: readonly ApiKeyConfig[] = [], tenants: readonly TenantConfig[] = []) {
    this.renew(keys, tenants)
  }

  /** These keys, and those of tenants, in place of all before. */
  renew(keys: readonly ApiKeyConfig[], tenants: readonly TenantConfig[]): void {
    const before = new Map([...this.#byDigest.values()].map((key) => [key.config.name, key]))
    const all = [...keys, ...tenants.flatMap(plainKeys)]
    this.#byDigest = new Map(
      all.map((config) => [config.digest, new ApiKey(config, before.get(config.name))]),
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
  window: RateWindow,
  waitMs: number,
): UserError {
  const seconds = Math.ceil(waitMs / 1000)
  return userError("rate_limit_exceeded", { name, what, limit: window.limit, seconds }, { retryMs: waitMs })
}
