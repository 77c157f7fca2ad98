/** Engines that a gateway stands in front of, as an operator names them: on a command line, in the config's `backends`
 * section, or in a file of their own. */
import { z } from "zod"
import { UserError } from "../errors.ts"
import { type Environment, readSecret } from "./secrets.ts"

export const BACKEND_KIND_NAMES = ["slos-serve", "vllm", "sglang", "llama-server", "openai"] as const
export type BackendKindName = (typeof BACKEND_KIND_NAMES)[number]

export interface BackendConfig {
  /** null: what it says that it is. */
  kind: BackendKindName | null
  /** Scheme, host, port, and a path where the API is below one; nothing at its end. A name with several addresses is as
   * many backends. */
  url: string
  /** It gets so many times what a backend of weight 1 gets. */
  weight: number
  /** What clients call a model, and what it does. None: all is for its first model. */
  models: ReadonlyMap<string, string>
  /** Sent as `authorization: Bearer`; null: none. */
  apiKey: string | null
  /** It takes priorities (vLLM with --scheduling-policy priority). */
  priority: boolean
  /** Where its planner (`slos-serve planner --metrics-port`) answers, or `:port` of its own address; null: it has none. */
  planner: string | null
  /** Servers that compute its prompts (vLLM with a KV connector); none: it does so itself. */
  prefill: readonly string[]
}

const WEIGHT = "must be a number from 0.01 to 100"
const KIND = `must be one of ${BACKEND_KIND_NAMES.join(", ")}`
const MODEL = "must be 1 to 256 characters"

const entrySchema = z.strictObject({
  url: z.string({ error: "must be a URL" }),
  kind: z.enum(BACKEND_KIND_NAMES, { error: KIND }).optional(),
  weight: z.number({ error: WEIGHT }).min(0.01, WEIGHT).max(100, WEIGHT).optional(),
  models: z.record(z.string().min(1, MODEL), z.string().min(1, MODEL).max(256, MODEL)).optional(),
  key: z.string().min(1).optional(),
  key_env: z.string().min(1, "must name an environment variable").optional(),
  priority: z.boolean({ error: "must be true or false" }).optional(),
  planner: z.string({ error: "must be a URL" }).optional(),
  prefill: z.array(z.string({ error: "must be a URL" }), { error: "must be a list of URLs" }).optional(),
})
type Entry = z.output<typeof entrySchema>

/** For editors: what `preprocess` hides. */
export const backendSchema = z.union([z.string(), entrySchema])

export const backendsSchema = z.array(
  z.preprocess((entry) => (typeof entry === "string" ? { url: entry } : entry), entrySchema),
)

/** The section as read. Throws UserError. */
export function buildBackends(
  section: z.output<typeof backendsSchema>,
  environment: Environment = process.env,
): BackendConfig[] {
  return section.map((entry, i) => backendOf(entry, `backends[${i}]`, environment))
}

const INLINE =
  "URL or kind=URL, then ,weight=2 ,model=theirs:its ,key_env=NAME ,priority ,planner=URL ,prefill=URL as wanted"

/** `URL`, `vllm=URL`, `vllm=URL,weight=2,model=a:b,priority`. `option` is only for messages. */
export function parseInlineBackend(
  text: string,
  option: string,
  environment: Environment = process.env,
): BackendConfig {
  const [first = "", ...rest] = text.split(",")
  const named = /^([a-z-]+)=(.*)$/.exec(first)
  const entry: Record<string, unknown> = named === null ? { url: first } : { kind: named[1], url: named[2] }
  const models: Record<string, string> = {}
  for (const part of rest) {
    const [key = "", ...values] = part.split("=")
    const value = values.join("=")
    if (key === "priority" && values.length === 0) entry.priority = true
    else if (key === "weight") entry.weight = value.trim() === "" ? Number.NaN : Number(value)
    else if (key === "key_env") entry.key_env = value
    else if (key === "planner") entry.planner = value
    else if (key === "prefill") entry.prefill = [...((entry.prefill ?? []) as string[]), value]
    else if (key === "model") addModel(models, value, option)
    else throw new UserError(`${option}: "${part.slice(0, 60)}" is not known; give ${INLINE}`)
  }
  if (Object.keys(models).length > 0) entry.models = models
  const parsed = entrySchema.safeParse(entry)
  if (parsed.success) return backendOf(parsed.data, option, environment)
  const { path, message } = parsed.error.issues[0]!
  throw new UserError(`${option} ${path.join(".")}: ${message}; give ${INLINE}`)
}

/** `theirs:its`, cut at the first colon; a name alone is the same for both. */
function addModel(models: Record<string, string>, value: string, option: string): void {
  const at = value.indexOf(":")
  const [theirs, its] = at < 0 ? [value, value] : [value.slice(0, at), value.slice(at + 1)]
  if (theirs === "" || its === "")
    throw new UserError(
      `${option} model: give model=theirs:its, what clients call it and what the backend does`,
    )
  models[theirs] = its
}

function backendOf(entry: Entry, where: string, environment: Environment): BackendConfig {
  const {
    kind = null,
    url,
    weight = 1,
    models = {},
    key,
    key_env,
    priority = false,
    planner,
    prefill = [],
  } = entry
  if (planner !== undefined && kind !== null && kind !== "vllm")
    throw new UserError(`${where}: only a vLLM has a planner, not ${kind}; leave planner out`)
  if (prefill.length > 0 && kind !== "vllm")
    throw new UserError(
      `${where}: only a vLLM has its prompts computed elsewhere; give vllm=URL, or leave prefill out`,
    )
  const fromEnvironment = key_env === undefined ? null : (environment[key_env] ?? "")
  if (fromEnvironment === "") throw new UserError(`${where}: the environment variable ${key_env} is not set`)
  return {
    ...{ kind, weight, priority, models: new Map(Object.entries(models)) },
    url: normalUrl(url, where),
    prefill: prefill.map((text) => normalUrl(text, `${where} prefill`)),
    planner: planner === undefined ? null : plannerAt(planner, `${where} planner`),
    apiKey: key === undefined ? fromEnvironment : keyOf(key, where, environment),
  }
}

function keyOf(key: string, where: string, environment: Environment): string {
  try {
    return readSecret(key, environment)
  } catch (error) {
    throw new UserError(`${where}: key: ${(error as Error).message}`)
  }
}

function plannerAt(text: string, where: string): string {
  const port = /^:(\d{1,5})$/.exec(text)?.[1]
  return port !== undefined && Number(port) >= 1 && Number(port) <= 65_535 ? text : normalUrl(text, where)
}

function normalUrl(text: string, where: string): string {
  const url = URL.parse(text)
  const shown = JSON.stringify(text.slice(0, 200))
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:"))
    throw new UserError(`${where}: ${shown} is no URL; give one like http://10.0.0.7:8000`)
  if (url.username !== "" || url.password !== "")
    throw new UserError(`${where}: a URL with a password in it; give the key with key_env=NAME instead`)
  if (url.search !== "" || url.hash !== "")
    throw new UserError(`${where}: ${shown} has a query; leave it out`)
  // Clients are told to add /v1 to a base URL; so many do here, too.
  const path = url.pathname.replace(/\/+$/, "").replace(/\/v1$/, "")
  return url.origin + path
}

/** Throws UserError where two are one. */
export function checkBackends(backends: readonly BackendConfig[]): void {
  const seen = new Set<string>()
  for (const { url } of backends) {
    const address = url.replace("//localhost", "//127.0.0.1")
    if (seen.has(address)) throw new UserError(`two backends have the address ${url}; leave one of them out`)
    seen.add(address)
  }
}
