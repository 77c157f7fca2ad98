/** Runs a gateway before a vLLM of its own: first its port, then the planner, then vLLM. */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parse, stringify } from "yaml"
import { type BackendConfig, checkBackends } from "../config/backends.ts"
import type { ServerConfig } from "../config/file.ts"
import { UserError } from "../errors.ts"
import { freePort } from "../free-port.ts"
import { Service } from "../serve/service.ts"
import type { Tenants } from "../serve/tenants.ts"
import { readVllmArguments, type VllmArguments } from "../vllm/arguments.ts"
import { checkModel, findVllm, launchOf } from "../vllm/launch.ts"
import { policyOptions } from "./policy-options.ts"
import type { Reporter } from "./reporter.ts"
import { checkParts, openBackends, warmedGateway } from "./serve-gateway.ts"
import { serveGateways } from "./serve-gateways.ts"
import { configOf, tenantsOf } from "./serve-parts.ts"
import { serveFront } from "./serve-run.ts"
import type { VllmOptions } from "./vllm-options.ts"
import { VllmProcesses } from "./vllm-processes.ts"

export async function serveVllm(
  options: VllmOptions,
  args: readonly string[],
  reporter: Reporter,
): Promise<void> {
  if (args.length === 0)
    throw new UserError(
      "say what vLLM is to serve, after --: slos-serve vllm -- Qwen/Qwen3-8B --max-model-len 16384",
    )
  const asked = readVllmArguments(args)
  const executable = findVllm(options.vllm)
  checkModel(executable, asked)
  const config = configOf(options)
  const { classes, backends } = config
  const tenants = tenantsOf(options, config)
  policyOptions(options.set)
  const { policy } = options
  if (options.gateways > 1) {
    checkParts(options)
    return serveSeveral(options, { executable, asked, config, tenants }, reporter)
  }
  await serveFront(
    options,
    { tenants, config, mostApps: classes.all.length },
    reporter,
    async (host, onClose) => {
      const processes = new VllmProcesses(options, reporter, (detail) => {
        host.detail = detail
      })
      onClose(() => processes.close())
      const warm = warmedGateway(classes, reporter)
      const planner = await processes.startPlanner(plannerConfig(options, tenants, processes.folder))
      const port = await freePort()
      const names = classes.all.map(({ name }) => name)
      const launch = launchOf(executable, asked, { port, socket: planner.socket, classes: names })
      await processes.startVllm(launch, port)
      const all = [...backends, backendOf(port, planner.url, asked)]
      checkBackends(all)
      const gateway = { backends: all, file: undefined }
      const apps = classes.all.length
      const front = await openBackends(gateway, options, { host, tenants, apps, warm }, reporter)
      return new Service({ front, classes, policy, tenants })
    },
  )
}

interface Launched {
  executable: ReturnType<typeof findVllm>
  asked: VllmArguments
  config: ServerConfig
  tenants: Tenants
}

/** The gateway's processes wait for vLLM as one would: their port is open meanwhile. */
async function serveSeveral(
  options: VllmOptions,
  { executable, asked, config, tenants }: Launched,
  reporter: Reporter,
): Promise<void> {
  const { classes, backends } = config
  const processes = new VllmProcesses(options, reporter, () => {})
  try {
    const planner = await processes.startPlanner(plannerConfig(options, tenants, processes.folder))
    const port = await freePort()
    const own = backendOf(port, planner.url, asked)
    checkBackends([...backends, own])
    const names = classes.all.map(({ name }) => name)
    const launch = launchOf(executable, asked, { port, socket: planner.socket, classes: names })
    await serveGateways(Object.assign(options, { backend: [own] }), reporter, {
      vllm: { policy: options.policy, mostApps: classes.all.length },
      start: () => processes.startVllm(launch, port),
      close: () => processes.close(),
    })
  } catch (error) {
    await processes.close()
    throw error
  }
}

function backendOf(port: number, planner: string, { apiKey }: VllmArguments): BackendConfig {
  const key = apiKey ?? process.env.VLLM_API_KEY ?? null
  return {
    ...{ kind: "vllm", url: `http://127.0.0.1:${port}`, weight: 1, priority: false, planner, prefill: [] },
    ...{ models: new Map<string, string>(), apiKey: key === "" ? null : key },
  }
}

/** Sections of the config that are the planner's as well. */
const PLANNED = ["default", "classes"]

/** The planner needs no keys and no backends: of tenants their weights, those of the command line included. */
function plannerConfig({ config }: VllmOptions, tenants: Tenants, folder: string): string | null {
  if (config === undefined && tenants.configured.length < 2) return null
  const given = config === undefined ? {} : (parse(readFileSync(config, "utf8")) as Record<string, unknown>)
  const rest = Object.fromEntries(PLANNED.flatMap((name) => (name in given ? [[name, given[name]]] : [])))
  const weights = tenants.configured.map((name) => [name, { weight: tenants.weightOf(name) }])
  const path = join(folder, "planner.yaml")
  writeFileSync(path, stringify({ ...rest, tenants: Object.fromEntries(weights) }))
  return path
}
