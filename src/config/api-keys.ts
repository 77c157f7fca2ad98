/** API keys as an operator gives them out: kept as digests, each with its tenant and what it may ask for. */
import { createHash, randomBytes } from "node:crypto"
import { z } from "zod"
import { FieldError, meant } from "./complaints.ts"
import { maxGap, SLO_BOUNDS, tpot, ttftTime } from "./objectives.ts"
import { type Environment, isReference, readSecret } from "./secrets.ts"
import type { SloClasses } from "./slo-classes.ts"
import { TENANT_NAME, type TenantConfig } from "./tenants.ts"

/** The tightest objectives that a key's requests may ask for themselves, µs. 0: any. */
export interface TightestObjectives {
  ttftUs: number
  /** Of a TTFT that is a multiple of the unloaded prefill time. */
  ttftSlowdown: number
  /** Of answers and thoughts. */
  tpotUs: number
  maxGapUs: number
}

export interface ApiKeyConfig {
  /** For people: in logs and errors, never the key. */
  name: string
  tenant: string
  /** Of its tenant, where `tenants` does not say. */
  weight: number | null
  /** SHA-256 of the key, hexadecimal. */
  digest: string
  /** Names of classes; null: all. */
  classes: readonly string[] | null
  tightest: TightestObjectives
  /** null: where the file's `access.objectives` says so. */
  objectives: boolean | null
  /** In any 60 s; null: as many as come. */
  requestsPerMinute: number | null
  /** Prompt and answer, in any 60 s. */
  tokensPerMinute: number | null
}

export const ANY_OBJECTIVES: TightestObjectives = { ttftUs: 0, ttftSlowdown: 0, tpotUs: 0, maxGapUs: 0 }

/** So long a key cannot be found by trying, so that its plain digest may be kept. */
const KEY_BYTES = 32
const KEY_PREFIX = "sk-slos-"

/** A new key. */
export function makeKey(): string {
  return KEY_PREFIX + randomBytes(KEY_BYTES).toString("base64url")
}

/** Hexadecimal. */
export function digestOf(key: string): string {
  return createHash("sha256").update(key).digest("hex")
}

const HASH = "must be sha256: and 64 hexadecimal digits, as `slos-serve config key` prints it"
const PLAIN = "keys are not written here: give their `hash`, or env:NAME or file:PATH"
const NAME = "a key's name is 1 to 128 visible ASCII characters"
const COUNT = "must be a whole number of 1 to 1000000000"

const count = z.number({ error: COUNT }).int(COUNT).min(1, COUNT).max(1e9, COUNT)

const keySchema = z.strictObject({
  hash: z
    .string({ error: HASH })
    .regex(/^sha256:[0-9a-fA-F]{64}$/, HASH)
    .optional()
    .describe("digest of the key, as `slos-serve config key` prints it"),
  key: z
    .string({ error: PLAIN })
    .refine(isReference, PLAIN)
    .optional()
    .describe("in place of the hash: where the key is, env:NAME or file:PATH"),
  tenant: z.string().regex(TENANT_NAME, NAME).optional().describe("default: the key's own name"),
  weight: z
    .number()
    .min(0.001)
    .max(1000)
    .optional()
    .describe("its tenant's share where not all fit, where `tenants` does not say it"),
  classes: z.array(z.string()).min(1).optional().describe("SLO classes that it may use (default: all)"),
  tightest: z
    .strictObject({
      ttft: ttftTime.optional(),
      ttft_slowdown: z.number().min(SLO_BOUNDS.slowdown.min).max(SLO_BOUNDS.slowdown.max).optional(),
      tpot: tpot.optional(),
      max_gap: maxGap.optional(),
    })
    .optional()
    .describe("objectives that its requests ask for themselves are no tighter"),
  objectives: z
    .boolean()
    .optional()
    .describe(
      "whether its requests may ask for objectives of their own (default: as access.objectives says)",
    ),
  requests_per_minute: count.optional().describe("in any 60 s; more get 429"),
  tokens_per_minute: count.optional().describe("prompt and answer, in any 60 s; more get 429"),
})

export const keysSchema = z.record(z.string().regex(TENANT_NAME, NAME), keySchema)

type KeySection = z.output<typeof keySchema>

/** The section as read. Throws FieldError where a key is missing, there twice, or names what there is not. */
export function buildKeys(
  section: z.output<typeof keysSchema>,
  { classes, tenants }: { classes: SloClasses; tenants: readonly TenantConfig[] },
  environment: Environment = process.env,
): ApiKeyConfig[] {
  const taken = new Map(
    tenants.flatMap(({ name, keys }) => keys.map((key) => [digestOf(key), `tenants.${name}`])),
  )
  const weights = new Map(tenants.map(({ name, weight }) => [name, { weight, by: `tenants.${name}` }]))
  return Object.entries(section).map(([name, given]) => {
    const at = (...more: (string | number)[]) => ["keys", name, ...more]
    const digest = digestIn(given, at(), environment)
    const other = taken.get(digest)
    if (other !== undefined) throw new FieldError(at(), `has the same key as ${other}`)
    taken.set(digest, `keys.${name}`)
    checkClasses(given.classes ?? [], classes, at("classes"))
    const { tenant = name, weight = null } = given
    const known = weights.get(tenant)
    if (weight !== null && known !== undefined && known.weight !== weight)
      throw new FieldError(at("weight"), `is ${weight}, and ${known.by} says ${known.weight} for ${tenant}`)
    if (weight !== null) weights.set(tenant, { weight, by: `keys.${name}` })
    return {
      ...{ name, tenant, weight, digest, classes: given.classes ?? null, tightest: tightestOf(given) },
      objectives: given.objectives ?? null,
      requestsPerMinute: given.requests_per_minute ?? null,
      tokensPerMinute: given.tokens_per_minute ?? null,
    }
  })
}

function tightestOf({ tightest }: KeySection): TightestObjectives {
  if (tightest === undefined) return ANY_OBJECTIVES
  const { ttft = 0, ttft_slowdown: ttftSlowdown = 0, tpot: tpotUs = 0, max_gap: maxGapUs = 0 } = tightest
  return { ttftUs: ttft, ttftSlowdown, tpotUs, maxGapUs }
}

function digestIn({ hash, key }: KeySection, at: (string | number)[], environment: Environment): string {
  if ((hash === undefined) === (key === undefined))
    throw new FieldError(
      at,
      "has either a `hash` (slos-serve config key makes one) or a `key` (env:NAME, file:PATH)",
    )
  if (hash !== undefined) return hash.slice("sha256:".length).toLowerCase()
  let value: string
  try {
    value = readSecret(key!, environment)
  } catch (error) {
    throw new FieldError([...at, "key"], (error as Error).message)
  }
  if (/^[\x21-\x7e]{1,512}$/.test(value)) return digestOf(value)
  throw new FieldError([...at, "key"], "what is there must be 1 to 512 visible ASCII characters")
}

function checkClasses(names: readonly string[], { byName }: SloClasses, at: (string | number)[]): void {
  for (const [i, name] of names.entries())
    if (!byName.has(name)) {
      const all = [...byName.keys()]
      throw new FieldError(
        [...at, i],
        `names no class: ${name}${meant(name, all)}; there are ${all.join(", ")}`,
      )
    }
}
