/** The server's options as a config file has them: sections of fields, each of which is one option of the command line. */
import { z } from "zod"
import { POLICY_NAMES } from "../core/policy/index.ts"
import { parseOrigin } from "./origins.ts"
import { peerSecretSchema, peersSchema } from "./peers.ts"
import type { FieldPath } from "./yaml-file.ts"

/** One option that a file says. */
export interface Setting {
  field: FieldPath
  /** As the command line's parser names it. */
  option: string
  value: unknown
}

interface Field {
  option: string
  schema: z.ZodType
}

const field = (option: string, schema: z.ZodType, about: string): Field => ({
  option,
  schema: schema.describe(about),
})

const whole = (min: number, max: number) => {
  const message = `must be a whole number from ${min} to ${max}`
  return z.number({ error: message }).int(message).min(min, message).max(max, message)
}
const number = (min: number, max: number) => {
  const message = `must be a number from ${min} to ${max}`
  return z.number({ error: message }).min(min, message).max(max, message)
}
const text = (what: string) => z.string({ error: `must be ${what}` }).min(1, `must be ${what}`)
const choice = <const Names extends readonly [string, ...string[]]>(...names: Names) =>
  z.enum(names, { error: `must be one of ${names.join(", ")}` })
const yes = z.boolean({ error: "must be true or false" })

const UNIT_S: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600 }

/** Seconds: a number of them, or with a unit. `whole`: no parts of one. */
function seconds(min: number, max: number, whole = true) {
  const message = `must be from ${min}s to ${max}s${whole ? ", whole seconds" : ""}: write 30s, 5m, or a number of seconds`
  return z.union([z.string(), z.number()], { error: message }).transform((given, context): number => {
    const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)$/.exec(String(given).trim())
    const value =
      typeof given === "number" ? given : match === null ? Number.NaN : Number(match[1]) * UNIT_S[match[2]!]!
    if (value >= min && value <= max && (!whole || Number.isInteger(value))) return value
    context.addIssue({ code: "custom", message })
    return z.NEVER
  })
}

const BYTES: Record<string, number> = { "": 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 }
const SIZE = "must be between 1k and 1g: write 8m, 512k, or a number of bytes"
const bytes = z.union([z.string(), z.number()], { error: SIZE }).transform((given, context): number => {
  const match = /^(\d+)\s*([kmg]?)b?$/i.exec(String(given).trim())
  const value = match === null ? Number.NaN : Number(match[1]) * BYTES[match[2]!.toLowerCase()]!
  if (value >= 1024 && value <= 2 ** 30) return value
  context.addIssue({ code: "custom", message: SIZE })
  return z.NEVER
})

const drafter = text("lookup, off, or draft=<model>").regex(
  /^(lookup|off|draft=\S.*)$/,
  "must be lookup, off, or draft=<model>",
)
const url = text("a URL, as http://collector:4318").refine(
  (given) => /^https?:$/.test(URL.parse(given)?.protocol ?? ""),
  "must be a URL, as http://collector:4318",
)

const origin = z
  .string({ error: "must be an origin, like https://app.example.com" })
  .transform((given, context) => {
    try {
      return parseOrigin(given)
    } catch (error) {
      context.addIssue({ code: "custom", message: (error as Error).message })
      return z.NEVER
    }
  })

export const SETTINGS: Readonly<Record<string, Readonly<Record<string, Field>>>> = {
  model: {
    name: field("model", text("a model"), "a known name, hf:owner/repo/file.gguf, or a path"),
    served_name: field("servedName", text("a name"), "its name in the API"),
    default_max_tokens: field(
      "defaultMaxTokens",
      whole(1, 1_000_000),
      "answer length when a request gives none",
    ),
    parse_special: field(
      "parseSpecial",
      choice("never", "asked", "always"),
      "whether texts may spell control tokens",
    ),
    offline: field("offline", yes, "use only what is in the cache"),
  },
  engine: {
    kind: field("engine", choice("llama", "fake"), "fake: no model, plausible timing"),
    replicas: field("replicas", whole(1, 64), "worker processes"),
    device: field("device", text("a list of devices"), "where replicas run, in turn: cpu:0-3,cpu:4-7"),
    threads: field("threads", whole(1, 1024), "engine threads"),
    max_sequences: field("maxSequences", whole(1, 256), "requests with KV in place at once"),
    context: field("context", whole(64, 1_000_000), "most tokens of one request"),
    kv_tokens: field("kvTokens", whole(64, 1e9), "size of a unified KV pool"),
    kv_unified: field("kvUnified", yes, "one KV pool and one pass per step"),
    flash_attention: field("flashAttention", yes, "attention in tiles"),
    kv_type: field("kvType", choice("f16", "f32", "q8_0"), "KV number format"),
    max_batch_tokens: field("maxBatchTokens", whole(1, 65_536), "most tokens of one step"),
    speculate: field("speculate", drafter, "lookup, off, or draft=<model>"),
    max_speculation: field("maxSpeculation", whole(1, 64), "most tokens verified per request and step"),
    gpu_layers: field("gpuLayers", whole(0, 10_000), "layers on the GPU"),
    library: field("library", text("a library"), "llama.cpp library: auto, cpu, cuda, vulkan, or a folder"),
    profile: field("profile", yes, "false: no measurement of step times at the start"),
    step_timeout: field("stepTimeout", seconds(0, 86_400, false), "an engine step that takes longer hangs"),
  },
  scheduler: {
    policy: field("policy", choice(...(POLICY_NAMES as [string, ...string[]])), "scheduling policy"),
    margin: field("margin", number(0, 2), "safety margin on predicted step times, 0.2 = 20%"),
    max_batch_ms: field("maxBatchMs", whole(1, 60_000), "longest step while SLO work runs"),
    best_effort_ms: field(
      "bestEffortMs",
      whole(1, 60_000),
      "longest step that best-effort work may make then",
    ),
    token_budget: field("tokenBudget", whole(1, 65_536), "tokens of a step for the vllm policies"),
    admission: field("admission", choice("revocable", "firm"), "when an SLO becomes a promise"),
    share_prefixes: field("sharePrefixes", yes, "prompts reuse the KV of other tenants' prompts"),
  },
  server: {
    host: field("host", text("an address"), "address to listen on"),
    port: field("port", whole(0, 65_535), "port to listen on; 0 picks a free one"),
    gateways: field("gateways", whole(1, 64), "processes before the backends that share the address"),
    peers: field("peer", peersSchema, "gateways on other machines before the same backends: host:port"),
    peer_file: field("peerFile", text("a file"), "a YAML list of more of them, read again when it changes"),
    peer_port: field("peerPort", whole(1, 65_535), "port for peers"),
    peer_secret: field(
      "peerSecret",
      peerSecretSchema,
      "what all peers have in common: env:NAME or file:PATH",
    ),
  },
  access: {
    objectives: field(
      "objectives",
      choice("all", "keys", "none"),
      "requests that may ask for objectives of their own: all, those with a key, or none",
    ),
    require_key: field("requireKey", yes, "false: requests without a key are the default tenant's"),
    allowed_hosts: field(
      "allowedHost",
      z.array(text("a host"), { error: "must be a list of hosts" }),
      "names that clients may use for this server; .example.com: all below it; *: any",
    ),
    protect: field(
      "protect",
      z.array(choice("health", "metrics", "status"), { error: "must be a list" }),
      "routes outside the API that need a key as well: health, metrics, status",
    ),
    trust_fairness_id: field("trustFairnessId", yes, "whether the fairness headers name the tenant"),
  },
  cors: {
    origins: field(
      "corsOrigin",
      z.array(origin, { error: "must be a list of origins" }),
      "web pages that may call the API: https://app.example.com, or * for all",
    ),
  },
  tls: {
    cert: field(
      "tlsCert",
      text("a file"),
      "certificate, PEM: served over TLS with it; read again when it changes",
    ),
    key: field("tlsKey", text("a file"), "its key, PEM"),
  },
  limits: {
    max_queue: field("maxQueue", whole(1, 1_000_000), "most live requests"),
    body_limit: field("bodyLimit", bytes, "largest request body: 8m"),
    stored_responses: field(
      "storedResponses",
      whole(0, 1_000_000),
      "most responses of /v1/responses that are kept; 0: none is",
    ),
    stored_response_bytes: field("storedResponseBytes", bytes, "most bytes of them: 64m"),
    request_timeout: field("requestTimeout", seconds(1, 3600), "a request must be received within this time"),
    drain_timeout: field(
      "drainTimeout",
      seconds(0, 86_400),
      "on SIGTERM, wait this long for running requests",
    ),
    backend_timeout: field(
      "backendTimeout",
      seconds(1, 86_400),
      "a backend that begins no answer for so long has lost it",
    ),
  },
  scale: {
    target: field("scaleTarget", number(0.5, 0.999), "share of the requests that is to keep every SLO"),
    every: field("scaleEvery", seconds(0, 3600, false), "from one forecast to the next; 0: none"),
    window: field("scaleWindow", seconds(30, 3600, false), "last arrivals that a forecast plays"),
    down_after: field(
      "scaleDownAfter",
      seconds(0, 86_400, false),
      "fewer replicas are wanted only after so long",
    ),
    cold_start: field(
      "coldStart",
      seconds(0, 3600, false),
      "time from the wish for a replica until it serves",
    ),
    most_replicas: field("mostReplicas", whole(1, 1024), "no more are wanted"),
  },
  logging: {
    level: field(
      "logLevel",
      choice("fatal", "error", "warn", "info", "debug", "trace", "silent"),
      "what is logged",
    ),
  },
  telemetry: {
    otlp_endpoint: field("otlpEndpoint", url, "where OpenTelemetry traces go by OTLP over HTTP"),
  },
}

/** A schema for each section. */
export const settingsSchemas: Readonly<Record<string, z.ZodType>> = Object.fromEntries(
  Object.entries(SETTINGS).map(([name, fields]) => [
    name,
    z
      .strictObject(
        Object.fromEntries(Object.entries(fields).map(([key, { schema }]) => [key, schema.optional()])),
      )
      // A section without fields says nothing.
      .nullish(),
  ]),
)

/** What a parsed file says of options. */
export function settingsOf(file: Readonly<Record<string, unknown>>): Setting[] {
  return Object.entries(SETTINGS).flatMap(([section, fields]) => {
    const said = (file[section] ?? {}) as Record<string, unknown>
    return Object.entries(fields).flatMap(([name, { option }]) =>
      said[name] === undefined ? [] : [{ field: [section, name], option, value: said[name] }],
    )
  })
}
