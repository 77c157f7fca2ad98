/** Tenants of one server: which a request is of, by its API key or the gateway's header, and what the core knows of each
 * (docs/design.md, Tenants). */
import { createHash, randomBytes } from "node:crypto"
import { DEFAULT_TENANT, TENANT_NAME, type TenantConfig } from "../config/tenants.ts"
import { UserError, userError } from "../errors.ts"
import { type Salt, saltOf } from "./prefix.ts"

/** Tenants that only the header names, at once; and in figures, ever. More are one tenant. */
export const MOST_NAMED = 100
/** Its name, which is never that of a tenant: header and config know no blanks. */
export const OTHERS = "(all others)"

/** What gateways name a tenant by: llm-d's header, else the Gateway API's. An empty one says nothing. */
export const FAIRNESS_HEADERS = ["x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id"] as const

export interface TenantOptions {
  tenants?: readonly TenantConfig[]
  /** Whether the header names tenants. Default: where no tenant has a key. */
  trustHeader?: boolean
  /** Whether requests must have a key, where some tenant has one. Default: true. */
  requireKey?: boolean
  /** Prompts share the KV of other tenants' as well. */
  sharePrefixes?: boolean
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

export class Tenants {
  /** By number: of all that there can be. */
  readonly weights: readonly number[]
  readonly #allWeights: number
  readonly trustsHeader: boolean
  readonly needsKey: boolean
  /** Some tenant has a key. */
  readonly hasKeys: boolean
  readonly #ofKey = new Map<string, string>()
  readonly #configured = new Map<string, Tenant>()
  /** Named by the header alone; the one that was named longest ago first. */
  readonly #named = new Map<string, Tenant>()
  readonly #secret = randomBytes(32)
  readonly #sharedSalt: Salt | null

  constructor(options: TenantOptions = {}) {
    const { tenants = [], trustHeader, requireKey = true, sharePrefixes = false } = options
    const keyed = tenants.some(({ keys }) => keys.length > 0)
    this.trustsHeader = trustHeader ?? !keyed
    this.hasKeys = keyed
    this.needsKey = keyed && requireKey
    this.#sharedSalt = sharePrefixes ? saltOf(this.#secret, "") : null
    const weights = new Map([DEFAULT_TENANT, OTHERS].map((name) => [name, 1]))
    for (const { name, weight, keys } of tenants) {
      weights.set(name, weight)
      for (const key of keys) this.#ofKey.set(digestOf(key), name)
    }
    for (const name of weights.keys()) this.#configured.set(name, this.#tenant(name, this.#configured.size))
    this.weights = [...weights.values(), ...Array<number>(this.trustsHeader ? MOST_NAMED : 0).fill(1)]
    this.#allWeights = this.weights.reduce((sum, weight) => sum + weight, 0)
  }

  /** The name of the tenant that a request is of. Throws UserError for a wrong key or name. */
  identify(headers: Readonly<Record<string, string | string[] | undefined>>): string {
    const owner = this.#owner(headers.authorization)
    return (this.trustsHeader ? nameIn(headers) : null) ?? owner ?? DEFAULT_TENANT
  }

  /** The tenant of that name. One that was not heard of before gets a number of its own, if need be that of one without
   * requests, which `isIdle` tells; where all have some it is one of the others. */
  of(name: string, isIdle: (number: number) => boolean): Tenant {
    const configured = this.#configured.get(name)
    if (configured !== undefined) return configured
    const tenant = this.#named.get(name) ?? this.#tenant(name, this.#freeNumber(isIdle))
    if (tenant.number === this.#others) return tenant
    this.#named.delete(name)
    this.#named.set(name, tenant)
    return tenant
  }

  /** All that have a number, by number. */
  get all(): Tenant[] {
    return [...this.#configured.values(), ...this.#named.values()].sort((a, b) => a.number - b.number)
  }

  weightOf(name: string): number {
    const tenant = this.#configured.get(name)
    return tenant === undefined ? 1 : this.weights[tenant.number]!
  }

  /** Of 1, among all that there can be. */
  shareOf = (number: number): number => (this.weights[number] ?? 0) / this.#allWeights

  /** Those that always have one. */
  get configured(): string[] {
    return [...this.#configured.keys()].filter((name) => name !== OTHERS)
  }

  /** null where there is no key. */
  #owner(header: string | string[] | undefined): string | null {
    if (this.#ofKey.size === 0) return null
    const key = /^Bearer\s+(\S+)$/i.exec(String(header ?? "").trim())?.[1]
    const owner = key === undefined ? undefined : this.#ofKey.get(digestOf(key))
    if (owner !== undefined) return owner
    if (key !== undefined) throw userError("invalid_api_key")
    if (this.needsKey) throw userError("missing_api_key")
    return null
  }

  get #others(): number {
    return this.#configured.get(OTHERS)!.number
  }

  #freeNumber(isIdle: (number: number) => boolean): number {
    if (this.#named.size < MOST_NAMED) return this.#configured.size + this.#named.size
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

/** Keys are compared by their digests: how long that takes says nothing of them. */
function digestOf(key: string): string {
  return createHash("sha256").update(key).digest("base64")
}

function nameIn(headers: Readonly<Record<string, string | string[] | undefined>>): string | null {
  for (const param of FAIRNESS_HEADERS) {
    const name = String(headers[param] ?? "").trim()
    if (name === "") continue
    if (TENANT_NAME.test(name)) return name
    const why = "it must be one name of 1 to 128 visible ASCII characters"
    throw new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
  }
  return null
}
