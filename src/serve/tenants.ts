/** Tenants of one server: which a request is of, by its API key or the gateway's header, and what the core knows of each
 * (docs/design.md, Tenants). */
import { randomBytes } from "node:crypto"
import type { ApiKeyConfig } from "../config/api-keys.ts"
import { DEFAULT_TENANT, TENANT_NAME, type TenantConfig } from "../config/tenants.ts"
import { UserError, userError } from "../errors.ts"
import { type ApiKey, type CountRates, KeyRing, type ObjectivesFrom } from "./key-ring.ts"
import { type Salt, saltOf } from "./prefix.ts"

/** Tenants that only the header names, at once; and in figures, ever. More are one tenant. */
export const MOST_NAMED = 100
/** Configured tenants with figures of their own. */
export const MOST_LABELLED = 200
/** Its name, which is never that of a tenant: header and config know no blanks. */
export const OTHERS = "(all others)"

/** What gateways name a tenant by: llm-d's header, else the Gateway API's. An empty one says nothing. */
export const FAIRNESS_HEADERS = ["x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id"] as const

export interface TenantOptions {
  tenants?: readonly TenantConfig[]
  /** Beside those of the tenants. */
  keys?: readonly ApiKeyConfig[]
  /** Whether the header names tenants. Default: where no tenant has a key. */
  trustHeader?: boolean
  /** Whether requests must have a key, where some tenant has one. Default: true. */
  requireKey?: boolean
  /** Prompts share the KV of other tenants' as well. */
  sharePrefixes?: boolean
  /** Which requests may ask for objectives of their own. Default: all. */
  objectives?: ObjectivesFrom
  /** What keys take of their rates is counted so, for as long as there are tenants. Default: in this process. */
  countRates?: CountRates
}

/** What a request's tenant is to the core. */
export interface Tenant {
  name: string
  /** RequestSpec.tenant. */
  number: number
  /** Of its sessions' names. */
  sessionSalt: Salt
  /** Of its prompts' hashes. */
  prefixSalt: Salt
}

type Headers = Readonly<Record<string, string | string[] | undefined>>

/** What a request says of where it comes from. */
export interface Origin {
  /** A tenant's name. */
  tenant: string
  key: ApiKey | null
}

export class Tenants {
  /** By number: of all that there can be. */
  readonly #weights: number[]
  #allWeights = 0
  #options: TenantOptions
  readonly #keys: KeyRing
  readonly #configured = new Map<string, Tenant>()
  /** Configured once, and not any more: their requests may live. */
  readonly #retired = new Map<string, Tenant>()
  /** Named by the header alone; the one that was named longest ago first. */
  readonly #named = new Map<string, Tenant>()
  /** Numbers that names of the header may have and none has. */
  readonly #free: number[]
  readonly #secret = randomBytes(32)
  readonly #sharedSalt: Salt | null

  constructor(options: TenantOptions = {}) {
    const { tenants = [], sharePrefixes = false } = options
    this.#options = options
    this.#keys = new KeyRing(options.keys, tenants, options.countRates)
    this.#sharedSalt = sharePrefixes ? saltOf(this.#secret, "") : null
    const weights = new Map([DEFAULT_TENANT, OTHERS].map((name) => [name, 1]))
    for (const { name, weight } of tenants) weights.set(name, weight)
    for (const name of weights.keys()) this.#configured.set(name, this.#tenant(name, this.#configured.size))
    this.#free = Array.from({ length: MOST_NAMED }, (_, i) => this.#configured.size + i)
    this.#weights = [...weights.values(), ...Array<number>(this.trustsHeader ? MOST_NAMED : 0).fill(1)]
    this.#sum()
  }

  get weights(): readonly number[] {
    return this.#weights
  }

  /** Some tenant has a key. */
  get hasKeys(): boolean {
    return this.#keys.size > 0
  }

  get needsKey(): boolean {
    return this.hasKeys && (this.#options.requireKey ?? true)
  }

  get trustsHeader(): boolean {
    return this.#options.trustHeader ?? !this.hasKeys
  }

  get objectives(): ObjectivesFrom {
    return this.#options.objectives ?? "all"
  }

  /** Other tenants, keys and rules from now on; each tenant that goes on has its number, each key what was counted of it. `weights` are
   * others then, and the same list. */
  renew(options: TenantOptions): void {
    const { tenants = [], keys = [] } = options
    this.#options = { ...options, sharePrefixes: this.#options.sharePrefixes ?? false }
    this.#keys.renew(keys, tenants)
    const weights = new Map([DEFAULT_TENANT, OTHERS].map((name) => [name, 1]))
    for (const { name, weight } of tenants) weights.set(name, weight)
    for (const [name, tenant] of this.#configured) {
      if (weights.has(name)) continue
      this.#configured.delete(name)
      this.#retired.set(name, tenant)
    }
    for (const [name, weight] of weights) this.#adopt(name, weight)
    this.#sum()
  }

  #adopt(name: string, weight: number): void {
    const known = this.#configured.get(name) ?? this.#retired.get(name) ?? this.#named.get(name)
    // Numbers of the header's names stay theirs.
    const last = this.#configured.size + this.#retired.size + MOST_NAMED
    const tenant = known ?? this.#tenant(name, Math.max(this.#weights.length, last))
    this.#retired.delete(name)
    this.#named.delete(name)
    this.#configured.set(name, tenant)
    while (this.#weights.length <= tenant.number) this.#weights.push(1)
    this.#weights[tenant.number] = weight
  }

  #sum(): void {
    this.#allWeights = this.#weights.reduce((sum, weight) => sum + weight, 0)
  }

  /** The name of the tenant that a request is of. Throws UserError for a wrong key or name. */
  identify(headers: Headers): string {
    return this.originOf(headers).tenant
  }

  /** Throws UserError for a request without a key, where some tenant has one. */
  demandKey(headers: Headers): void {
    if (this.hasKeys && this.#keys.find(headers) === null) throw userError("missing_api_key")
  }

  /** Throws UserError for a wrong key or name. */
  originOf(headers: Headers): Origin {
    const key = this.hasKeys ? this.#keys.find(headers) : null
    if (key === null && this.needsKey) throw userError("missing_api_key")
    const named = this.trustsHeader ? nameIn(headers) : null
    return { tenant: named ?? key?.config.tenant ?? DEFAULT_TENANT, key }
  }

  /** The tenant of that name. One that was not heard of before gets a number of its own, if need be that of one without
   * requests, which `isIdle` tells; where all have some it is one of the others. */
  of(name: string, isIdle: (number: number) => boolean): Tenant {
    const configured = this.#configured.get(name) ?? this.#retired.get(name)
    if (configured !== undefined) return configured
    const tenant = this.#named.get(name) ?? this.#tenant(name, this.#freeNumber(isIdle))
    if (tenant.number === this.#others) return tenant
    this.#named.delete(name)
    this.#named.set(name, tenant)
    return tenant
  }

  /** All that have a number, by number. */
  get all(): Tenant[] {
    return [...this.#configured.values(), ...this.#retired.values(), ...this.#named.values()].sort(
      (a, b) => a.number - b.number,
    )
  }

  weightOf(name: string): number {
    const tenant = this.#configured.get(name)
    return tenant === undefined ? 1 : this.#weights[tenant.number]!
  }

  /** Of 1, among all that there can be. */
  shareOf = (number: number): number => (this.#weights[number] ?? 0) / this.#allWeights

  /** Those that have figures of their own from the start: labels are kept for ever where metrics are stored. */
  get labelled(): string[] {
    return this.configured.slice(0, MOST_LABELLED)
  }

  /** Those that always have one. */
  get configured(): string[] {
    return [...this.#configured.keys()].filter((name) => name !== OTHERS)
  }

  /** Those, with their weights. */
  get named(): { name: string; weight: number }[] {
    return this.configured.map((name) => ({ name, weight: this.weightOf(name) }))
  }

  get #others(): number {
    return this.#configured.get(OTHERS)!.number
  }

  #freeNumber(isIdle: (number: number) => boolean): number {
    const free = this.#free.shift()
    if (free !== undefined) return free
    for (const [name, { number }] of this.#named) {
      if (!isIdle(number)) continue
      this.#named.delete(name)
      return number
    }
    return this.#others
  }

  #tenant(name: string, number: number): Tenant {
    const sessionSalt = saltOf(this.#secret, name)
    return { name, number, sessionSalt, prefixSalt: this.#sharedSalt ?? sessionSalt }
  }
}

function nameIn(headers: Headers): string | null {
  for (const param of FAIRNESS_HEADERS) {
    const name = String(headers[param] ?? "").trim()
    if (name === "") continue
    if (TENANT_NAME.test(name)) return name
    const why = "it must be one name of 1 to 128 visible ASCII characters"
    throw new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
  }
  return null
}
