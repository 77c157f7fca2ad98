/** Tenants as an operator names them: of a config file's `tenants` section, or one by one on a command line. */
import { z } from "zod"
import { UserError } from "../errors.ts"
import { FieldError } from "./complaints.ts"
import { type Environment, readSecret } from "./secrets.ts"

/** One tenant. */
export interface TenantConfig {
  name: string
  /** Its share where not all fit, against 1 for others. */
  weight: number
  /** API keys whose requests are its; none: only the header names it. */
  keys: readonly string[]
}

/** The tenant of requests that name none. */
export const DEFAULT_TENANT = "default"

const WEIGHT = "must be a number from 0.001 to 1000"
const NAME = "a tenant's name is 1 to 128 visible ASCII characters"
const KEY = "must be 1 to 512 visible ASCII characters"
const ENV = "must name an environment variable"

/** Names that a tenant may have, of whatever origin. */
export const TENANT_NAME = /^[\x21-\x7e]{1,128}$/

const key = z.string().regex(/^[\x21-\x7e]{1,512}$/, KEY)

const tenantSchema = z
  .strictObject({
    weight: z.number().min(0.001, WEIGHT).max(1000, WEIGHT).optional(),
    key: key.optional(),
    keys: z.array(key).optional(),
    key_env: z.string().min(1, ENV).optional(),
  })
  .nullable()

export const tenantsSchema = z.record(z.string().regex(TENANT_NAME, NAME), tenantSchema)

/** The section as read; keys of `key_env` come from `environment`. Throws UserError. */
export function buildTenants(
  section: z.output<typeof tenantsSchema>,
  environment: Environment = process.env,
): TenantConfig[] {
  return Object.entries(section).map(([name, given]) => {
    const { weight = 1, key: one, keys = [], key_env } = given ?? {}
    const at = (field: string, ...more: number[]) => ["tenants", name, field, ...more]
    const read = (text: string, field: (string | number)[]) => keyIn(text, field, environment)
    const all = [
      ...(one === undefined ? [] : [read(one, at("key"))]),
      ...keys.map((text, i) => read(text, at("keys", i))),
    ]
    if (key_env !== undefined) {
      const value = environment[key_env] ?? ""
      if (!key.safeParse(value).success)
        throw new FieldError(at("key_env"), `the environment variable ${key_env} ${KEY}`)
      all.push(value)
    }
    return { name, weight, keys: all }
  })
}

function keyIn(text: string, field: (string | number)[], environment: Environment): string {
  let value: string
  try {
    value = readSecret(text, environment)
  } catch (error) {
    throw new FieldError(field, (error as Error).message)
  }
  if (!key.safeParse(value).success) throw new FieldError(field, `what ${text} says ${KEY}`)
  return value
}

const INLINE = "name=key or name=key,weight; without a key (name=,weight) only the header names it"

/** `name=key`, `name=key,weight` or `name=,weight`. `option` is only for messages. */
export function parseInlineTenant(text: string, option: string): TenantConfig {
  // A refused text is not shown: it may hold a key.
  const refuse = (why: string) => new UserError(`${option}: ${why}; expected ${INLINE}`)
  const match = /^([^=]*)=([^,]*)(?:,(.*))?$/.exec(text)
  if (match === null) throw refuse("there is no = after the name")
  const [, name = "", own = "", weight = "1"] = match
  const fields = {
    ...(own !== "" && { key: own }),
    weight: weight.trim() === "" ? Number.NaN : Number(weight),
  }
  const parsed = tenantsSchema.safeParse({ [name]: fields })
  if (parsed.success) return buildTenants(parsed.data)[0]!
  if (!TENANT_NAME.test(name)) throw refuse(NAME)
  throw refuse(
    parsed.error.issues[0]!.path.at(-1) === "weight"
      ? `the weight of ${name} ${WEIGHT}`
      : `the key of ${name} ${KEY}`,
  )
}

/** Throws UserError where a name or a key is given twice. */
export function checkTenants(tenants: readonly TenantConfig[]): void {
  const names = new Set<string>()
  const ofKey = new Map<string, string>()
  for (const { name, keys } of tenants) {
    if (names.has(name))
      throw new UserError(`tenant ${name} is given twice; give it all its keys in one place`)
    names.add(name)
    for (const one of keys) {
      const other = ofKey.get(one)
      if (other !== undefined)
        throw new UserError(
          other === name
            ? `tenant ${name} has the same key twice`
            : `tenants ${other} and ${name} have the same key`,
        )
      ofKey.set(one, name)
    }
  }
}
