/** vLLM's own arguments as a user gave them after `--`: what of them this command has to know, and what it refuses, with the
 * reason, before minutes of loading. */
import { UserError } from "../errors.ts"
import { isRecord, merged, readConfigFile } from "./config-file.ts"

export interface VllmArguments {
  /** As they are to be handed on, --additional-config and the model's name left out. */
  args: readonly string[]
  /** The one that comes first, without a flag; null: --model, or vLLM's own default. */
  model: string | null
  /** It is named, in whichever way. */
  namesModel: boolean
  /** Of --additional-config, wherever it stands. */
  additional: Readonly<Record<string, unknown>>
  /** Of --api-key; null: none, or VLLM_API_KEY. */
  apiKey: string | null
}

/** One argument: its name without dashes, its value where one follows. */
interface Given {
  name: string
  value: string | null
  /** Where it stands. */
  from: number
  to: number
}

const SHORT: Readonly<Record<string, string>> = {
  ...{ tp: "tensor-parallel-size", pp: "pipeline-parallel-size", dp: "data-parallel-size" },
  ...{ dpn: "data-parallel-rank", dpr: "data-parallel-start-rank", dpl: "data-parallel-size-local" },
  ...{ dpa: "data-parallel-address", dpp: "data-parallel-rpc-port", dpb: "data-parallel-backend" },
  ...{ dph: "data-parallel-hybrid-lb", dpe: "data-parallel-external-lb" },
  ...{ dpm: "data-parallel-multi-port-external-lb", n: "nnodes", r: "node-rank" },
}

const OURS = "slos-serve vllm sets it"
const ELSEWHERE = "ranks on other machines do not reach the planner's socket"

/** Never to be given. */
const REFUSED: Readonly<Record<string, string>> = {
  "scheduler-cls": `${OURS}: its scheduler is what it is for; a vLLM with another one goes behind slos-serve serve --backend`,
  host: "vLLM listens on this machine alone, for the gateway; say --host before the --",
  port: "vLLM gets a free port, for the gateway; say --port before the --",
  uds: "the gateway reaches vLLM over a port that it picks",
  "ssl-keyfile": "the gateway reaches vLLM on this machine, without TLS",
  "ssl-certfile": "the gateway reaches vLLM on this machine, without TLS",
  grpc: "the gateway speaks HTTP to vLLM",
  "grpc-port": "the gateway speaks HTTP to vLLM",
  headless: ELSEWHERE,
  "node-rank": ELSEWHERE,
  "data-parallel-rank": ELSEWHERE,
  "data-parallel-start-rank": ELSEWHERE,
  "data-parallel-address": ELSEWHERE,
  "data-parallel-hybrid-lb": ELSEWHERE,
  "data-parallel-external-lb": ELSEWHERE,
  "data-parallel-multi-port-external-lb": ELSEWHERE,
  "kv-transfer-config": "a KV connector moves KV that the planner would not know of",
  "kv-offloading-size":
    "what it offloads with is a KV connector, which moves KV that the planner would not know of",
  "ec-transfer-config": "a connector moves what the planner would not know of",
  "enable-elastic-ep": "ranks that come and go are not known to the planner",
  "no-enable-chunked-prefill": "the planner cuts prompts into chunks",
  "tokens-only": "the gateway speaks the OpenAI API to vLLM",
}

/** Given with another value than one of these, refused. */
const ONLY: Readonly<Record<string, { values: readonly string[]; why: string }>> = {
  "scheduling-policy": {
    values: ["fcfs"],
    why: "the planner orders requests; leave it out, or give fcfs",
  },
  "long-prefill-token-threshold": { values: ["0"], why: "the planner decides how long chunks are" },
  "prefill-schedule-interval": { values: ["1"], why: "the planner decides when prompts run" },
  "data-parallel-backend": { values: ["mp"], why: ELSEWHERE },
  nnodes: { values: ["1"], why: ELSEWHERE },
  runner: { values: ["auto", "generate"], why: "the planner plans models that generate text" },
  task: { values: ["auto", "generate"], why: "the planner plans models that generate text" },
  convert: { values: ["auto", "none"], why: "the planner plans models that generate text" },
}

/** What is read of the others. */
const READ = [
  "model",
  "config",
  "additional-config",
  "api-key",
  "data-parallel-size",
  "data-parallel-size-local",
]

/** vLLM takes the beginning of a name for the name. No argument of vLLM 0.32 and 0.33 is the beginning of one of these. */
const KNOWN = [...Object.keys(REFUSED), ...Object.keys(ONLY), ...READ]

/** Throws UserError for what this command cannot run vLLM with. */
export function readVllmArguments(args: readonly string[]): VllmArguments {
  const [first] = args
  checkFirst(args)
  const model = first !== undefined && !first.startsWith("-") ? first : null
  const given = parse(args, model === null ? 0 : 1)
  for (const { name } of given) checkSpelling(name)
  const file = new Map(Object.entries(readConfigFile(last(given, "config")?.value ?? null)))
  for (const [name, value] of file) {
    const shown = `${name} in the file after --config`
    check(name, value, shown)
    // Of what can be turned off vLLM makes the argument that does.
    if (value === false) check(`no-${name}`, true, `${shown}, which is false,`)
  }
  for (const { name, value } of given) check(name, value, `--${name}`)
  checkLocal((name) => last(given, name)?.value ?? file.get(name))
  const additional = given.filter(({ name }) => name === "additional-config")
  const own = additional.map(({ value }) => jsonOf(value))
  const cut = new Set(additional.flatMap(({ from, to }) => range(from, to)))
  const fromFile = file.get("additional-config")
  return {
    args: args.flatMap((arg, at) => (cut.has(at) || (model !== null && at === 0) ? [] : spelled(arg))),
    model,
    namesModel: model !== null || given.some(({ name }) => name === "model") || file.has("model"),
    additional: checkPlugin([recordOf(fromFile), ...own].reduce(merged, {})),
    apiKey: textOf(last(given, "api-key")?.value ?? file.get("api-key")),
  }
}

/** What stands before the model on the command line that this one takes the place of. */
const BEFORE = ["serve", "vllm"]

function checkFirst([first = "", second]: readonly string[]): void {
  if (!BEFORE.includes(first) || second === undefined || second.startsWith("-")) return
  throw new UserError(
    `after -- comes what follows on \`vllm serve\`: leave out ${first}, as in slos-serve vllm -- Qwen/Qwen3-8B`,
  )
}

/** Settings of the plug-in: those that can be given here, and those that cannot. */
const PLUGIN = {
  ours: ["socket", "start", "command", "arguments"],
  given: ["deadline_ms", "hang_seconds", "start_seconds", "name"],
}

function checkPlugin(additional: Record<string, unknown>): Record<string, unknown> {
  const { slos_serve: settings } = additional
  if (settings === undefined) return additional
  const refuse = (what: string) =>
    new UserError(`vLLM's argument --additional-config: ${what}; settings are ${PLUGIN.given.join(", ")}`)
  if (!isRecord(settings)) throw refuse("slos_serve is no JSON object")
  for (const name of Object.keys(settings)) {
    if (PLUGIN.ours.includes(name)) throw refuse(`slos_serve.${name} cannot be given here: ${OURS}`)
    if (!PLUGIN.given.includes(name)) throw refuse(`slos_serve has no setting ${name.slice(0, 40)}`)
  }
  return additional
}

function checkSpelling(name: string): void {
  const [head = ""] = name.split(".", 1)
  const whole = KNOWN.includes(head) ? undefined : KNOWN.find((known) => known.startsWith(head))
  if (whole !== undefined)
    throw new UserError(`vLLM's argument --${head} may be short for --${whole}: write it out`)
}

/** All ranks of data parallelism are on this machine. */
function checkLocal(given: (name: string) => unknown): void {
  const local = given("data-parallel-size-local")
  const all = given("data-parallel-size") ?? 1
  if (local !== undefined && Number(local) !== Number(all))
    throw new UserError(
      `vLLM's argument --data-parallel-size-local cannot be ${local} here, other than --data-parallel-size (${all}): ${ELSEWHERE}`,
    )
}

/** vLLM reads no file that is given as --config=FILE, and does not say so. */
function spelled(arg: string): string[] {
  return arg.startsWith("--config=") ? ["--config", arg.slice("--config=".length)] : [arg]
}

function check(name: string, value: unknown, shown: string): void {
  const refuse = (why: string) => new UserError(`vLLM's argument ${shown} cannot be given here: ${why}`)
  const [head = "", below] = name.split(".", 2)
  const isOff = value === false || value === "false"
  const why = Object.hasOwn(REFUSED, head) ? REFUSED[head] : undefined
  if (why !== undefined && !isOff) throw refuse(why)
  const only = Object.hasOwn(ONLY, head) ? ONLY[head] : undefined
  if (only !== undefined && !only.values.includes(String(value))) throw refuse(only.why)
  if (head === "additional-config" && below !== undefined)
    throw refuse("give it whole, as one JSON object after --additional-config")
}

/** Values follow their flag after a space or an =; underscores in names are dashes, as vLLM reads them. */
function parse(args: readonly string[], from: number): Given[] {
  const given: Given[] = []
  for (let at = from; at < args.length; at++) {
    const arg = args[at]!
    const found = /^(-{1,2})([A-Za-z][\w.+-]*)(?:=(.*))?$/s.exec(arg)
    if (found === null) continue
    const [, dashes, spelled = "", inline] = found
    const short = dashes === "-" ? /^([nr])(\d+)$/.exec(spelled) : null
    const written = short?.[1] ?? spelled.replaceAll("_", "-")
    const name = dashes === "-" && Object.hasOwn(SHORT, written) ? SHORT[written]! : written
    const value = short?.[2] ?? inline
    const next = args[at + 1]
    const follows = value === undefined && next !== undefined && !/^-{1,2}[A-Za-z]/.test(next)
    given.push({ name, value: value ?? (follows ? next : null), from: at, to: at + (follows ? 2 : 1) })
  }
  return given
}

function last(given: readonly Given[], name: string): Given | undefined {
  return given.findLast((one) => one.name === name)
}

/** In a file it may stand as a map, or as the text that is given after the flag. */
function recordOf(value: unknown): Record<string, unknown> {
  if (isRecord(value)) return value
  return value === undefined || value === null ? {} : jsonOf(String(value))
}

function jsonOf(text: string | null): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text ?? "")
    if (isRecord(value)) return value
  } catch {
    // Told below.
  }
  throw new UserError(
    `vLLM's argument --additional-config must be a JSON object, not ${JSON.stringify(text ?? "")}`,
  )
}

function textOf(value: unknown): string | null {
  const one = Array.isArray(value) ? value[0] : value
  return typeof one === "string" && one !== "" ? one : null
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i)
}
