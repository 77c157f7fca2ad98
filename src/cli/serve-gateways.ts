/** `--gateways`: as many processes, each a whole gateway, on one address; and what there is of a gateway but once. */
import cluster from "node:cluster"
import { fileURLToPath } from "node:url"
import { moduleBeside } from "../beside.ts"
import { parseConfig } from "../config/file.ts"
import { readText } from "../config/yaml-file.ts"
import { UserError } from "../errors.ts"
import type { Peers } from "../fleet/peers/peers.ts"
import { METRICS, METRICS_PAGE } from "../http/routes/health.ts"
import type { Hub } from "../siblings/hub.ts"
import type { ToSibling } from "../siblings/messages.ts"
import { SiblingProcess } from "../siblings/sibling-process.ts"
import { parentProcess } from "../telemetry/parent-process.ts"
import { registerPeers } from "../telemetry/peer-gauges.ts"
import { type MetricsJson, SummedMetrics } from "../telemetry/summed-metrics.ts"
import type { BeforeVllm, GatewayOptions, GatewaySetup } from "./gateway-setup.ts"
import { renewableOf } from "./option-sources.ts"
import type { Reporter } from "./reporter.ts"
import type { ServeOptions } from "./serve-options.ts"
import { configOf, mostApps } from "./serve-parts.ts"
import { hubOf, openPeers, peersOf } from "./serve-peers.ts"
import { dieOf, onOthers, onStops } from "./serve-signals.ts"
import { systemdOf } from "./serve-systemd.ts"

const GATEWAY = fileURLToPath(moduleBeside(import.meta.url, "gateway-process"))

export interface GatewaysBeside {
  /** Before a vLLM; null: before whatever the options say. */
  vllm: BeforeVllm | null
  /** What else is to be there before they serve. */
  start: () => Promise<void>
  /** Called when all of them have ended, before this process does. */
  close: () => Promise<void>
}

const ALONE: GatewaysBeside = { vllm: null, start: async () => {}, close: async () => {} }

/** Resolves once all of them serve. Rejects when the operator must put something right first. */
export async function serveGateways(
  options: GatewayOptions,
  reporter: Reporter,
  beside: GatewaysBeside = ALONE,
): Promise<void> {
  const systemd = await systemdOf(reporter)
  systemd?.status("the gateway's processes are starting")
  const gateways = new Gateways(options, reporter, beside)
  const reload = (signal: string) => {
    const work = () => gateways.reload(signal)
    if (systemd === null) work()
    else systemd.reloading(work)
  }
  const stop = (signal: NodeJS.Signals) => {
    systemd?.stopping(`${signal}: running answers are finished first`)
    void gateways.stop(signal)
  }
  onStops(process, { stop, atOnce: (signal) => void gateways.stop(signal) }, reporter)
  onOthers(process, reload, reporter)
  const { lines, values } = await gateways.start()
  reporter.say(lines, values)
  systemd?.ready(`serves ${String(values.model)} at ${String(values.url)}`)
}

class Gateways {
  readonly #options: GatewayOptions
  readonly #reporter: Reporter
  readonly #beside: GatewaysBeside
  readonly #processes: SiblingProcess[]
  /** What the config file said at first, and each time that it was read again: one that is started anew goes the way of the others. */
  readonly #configs: string[]
  readonly #hub: Hub
  /** Of what this process has itself to tell. */
  readonly #registry = parentProcess()
  #peers: Peers | null = null
  #serve = false

  constructor(options: GatewayOptions, reporter: Reporter, beside: GatewaysBeside) {
    const { gateways: count, config } = options
    this.#options = options
    this.#reporter = reporter
    this.#beside = beside
    this.#configs = config === undefined ? [] : [readText(config)]
    const hub = hubOf(options)
    this.#hub = hub
    const metrics = new SummedMetrics(() => hub.askAll<MetricsJson>(METRICS, null), this.#registry)
    hub.answers(METRICS_PAGE, () => metrics.page())
    // Connections are handed out in turn here: where each process listens for itself the system chooses by their ports, which leaves
    // few kept connections uneven, and a second server on the same port would share it silently.
    cluster.schedulingPolicy = cluster.SCHED_RR
    cluster.setupPrimary({ exec: GATEWAY, args: [], serialization: "advanced" })
    this.#processes = Array.from({ length: count }, (_, index) => {
      const one = new SiblingProcess({
        ...{ index, hub, fork: () => cluster.fork(), setup: () => this.#setup(index) },
        log: (message, level) => (level === "error" ? reporter.warn(message) : reporter.log.info(message)),
      })
      one.onExit = () => metrics.left(index)
      return one
    })
  }

  /** Answers with what is to be said of them. */
  async start(): Promise<{ lines: readonly string[]; values: Record<string, unknown> }> {
    try {
      await this.#openPeers()
      await Promise.all([this.#beside.start(), ...this.#processes.map((one) => one.ready())])
    } catch (error) {
      for (const one of this.#processes) one.kill()
      this.#peers?.close()
      throw error
    }
    this.#serve = true
    const { lines, values } = this.#processes[0]!.said!
    const pids = this.#processes.map(({ pid }) => pid)
    return {
      lines: [...lines, `  ${pids.length} processes: ${pids.join(", ")}`, ""],
      values: { ...values, pids },
    }
  }

  /** As each of them does; never throws. */
  reload(signal: string): void {
    const { config } = this.#options
    const told: ToSibling = { type: "signal", signal: "SIGHUP" }
    if (config === undefined) {
      this.#tellAll(told)
      return
    }
    try {
      const text = readText(config)
      parseConfig(text, config)
      if (text !== this.#configs.at(-1)) this.#configs.push(text)
      this.#tellAll({ ...told, config: text })
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      this.#reporter.warn(`${signal}: all stays as it was: ${error.message}`)
    }
  }

  /** All that they have ends, or is given up when it is their second signal. Ends this process as they end. */
  async stop(signal: NodeJS.Signals): Promise<void> {
    if (!this.#serve) {
      for (const one of this.#processes) one.kill()
      return dieOf(signal)
    }
    const exits = await Promise.all(this.#processes.map((one) => one.stop(signal)))
    this.#peers?.close()
    const died = exits.find((exit) => exit.signal !== null)
    if (died !== undefined) return dieOf(signal)
    await this.#beside.close()
    this.#reporter.done("stopped")
    process.exit(Math.max(...exits.map(({ code }) => code ?? 0)))
  }

  /** One for all processes: what each tells goes out, and what comes in goes to each. */
  async #openPeers(): Promise<void> {
    const setup = peersOf(this.#options)
    if (setup === null) return
    const apps = mostApps(this.#options, configOf(this.#options))
    const parts = { hub: this.#hub, processes: this.#options.gateways, apps }
    this.#peers = await openPeers(setup, parts, this.#reporter)
    registerPeers(this.#registry, this.#peers)
  }

  #tellAll(message: ToSibling): void {
    for (const one of this.#processes) one.tell(message)
  }

  #setup(index: number): object[] {
    const { vllm } = this.#beside
    const [first, ...later] = this.#configs
    const options = first === undefined ? this.#options : { ...this.#options, configText: first }
    const setup: GatewaySetup = {
      ...{ index, count: options.gateways, renewable: renewableOf(this.#options) },
      as: vllm === null ? { vllm, options: options as ServeOptions } : { vllm, options },
    }
    const again = later.map((config): ToSibling => ({ type: "signal", signal: "SIGHUP", config }))
    return [setup, ...again]
  }
}
