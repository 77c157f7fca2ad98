/** The backends that a gateway has just now: those of its options, those that their names stand for, and those of a file that
 * may change. New ones join; those that are gone end what they have. */
import { unwatchFile, watchFile } from "node:fs"
import { Agent } from "undici"
import { type BackendConfig, backendsSchema, buildBackends, checkBackends } from "../../config/backends.ts"
import { readListFile } from "../../config/list-file.ts"
import { UserError } from "../../errors.ts"
import type { ReplicaHost } from "../../replica/host.ts"
import type { Siblings } from "../../siblings/siblings.ts"
import { CostFit } from "../cost-fit.ts"
import type { Serving } from "../one-model.ts"
import { RemoteReplica } from "../remote-replica.ts"
import { type Endpoint, endpointsOf, type Lookup } from "./addresses.ts"
import type { Timeouts } from "./exchange.ts"
import { BACKEND_KINDS } from "./kinds.ts"
import { RemoteHost } from "./remote-host.ts"
import { RemotePlanner } from "./remote-planner.ts"

export interface BackendSetOptions {
  backends: readonly BackendConfig[]
  /** Holds more of them: a list, or a map with `backends`, as in the config. */
  file?: string
  /** Number of apps (SLO classes). */
  apps: number
  timeouts?: Partial<Timeouts>
  /** Between two looks at a backend, and at names and the file, ms. */
  probeMs?: number
  refreshMs?: number
  lookup?: Lookup
  /** Other processes of this gateway, before the same backends. */
  siblings?: Siblings | null
  log?: (message: string, level: "warn" | "info") => void
}

export interface BackendSetSink {
  joined(host: ReplicaHost): void
  /** It takes nothing new; what it has ends before it is closed. */
  leaves(host: ReplicaHost): void
}

const TIMEOUTS: Timeouts = { connectMs: 2000, firstByteMs: 300_000, silenceMs: 60_000 }
const PROBE_MS = 1000
const REFRESH_MS = 10_000
const LIST = { name: "backends", schema: backendsSchema, example: "http://10.0.0.7:8000" }

interface Member {
  host: ReplicaHost
  dispatcher: Agent
}

export class BackendSet {
  readonly #options: BackendSetOptions
  readonly #sink: BackendSetSink
  readonly #members = new Map<string, Member>()
  readonly #kin = new Map<string, CostFit>()
  #fromFile: readonly BackendConfig[] = []
  #timer: NodeJS.Timeout | null = null
  #refreshing: Promise<void> = Promise.resolve()
  #closed = false
  /** Said once, until it changes. */
  #said = new Map<string, string>()

  private constructor(options: BackendSetOptions, sink: BackendSetSink) {
    this.#options = options
    this.#sink = sink
  }

  /** Throws UserError for options or a file that cannot be meant. Backends that cannot be reached are no error. */
  static async open(options: BackendSetOptions, sink: BackendSetSink): Promise<BackendSet> {
    const set = new BackendSet(options, sink)
    checkBackends(options.backends)
    if (options.file !== undefined) set.#fromFile = await set.#read(options.file)
    checkBackends([...options.backends, ...set.#fromFile])
    await set.#refresh()
    set.#watch()
    return set
  }

  get hosts(): ReplicaHost[] {
    return [...this.#members.values()].map(({ host }) => host)
  }

  /** Names and the file, looked at anew. */
  refresh(): Promise<void> {
    this.#refreshing = this.#refreshing.then(() => this.#refresh())
    return this.#refreshing
  }

  async close(): Promise<void> {
    this.#closed = true
    if (this.#timer !== null) clearInterval(this.#timer)
    if (this.#options.file !== undefined) unwatchFile(this.#options.file)
    await this.#refreshing
    await Promise.all([...this.#members.values()].map(close))
    this.#members.clear()
  }

  #watch(): void {
    const { file, refreshMs = REFRESH_MS } = this.#options
    this.#timer = setInterval(() => void this.refresh(), refreshMs)
    this.#timer.unref()
    // By its time stamp, again and again: links that Kubernetes swaps are seen, too.
    if (file === undefined) return
    const interval = Math.min(1000, refreshMs)
    watchFile(file, { interval, persistent: false }, () => void this.#reread(file))
  }

  async #reread(file: string): Promise<void> {
    try {
      const backends = await this.#read(file)
      checkBackends([...this.#options.backends, ...backends])
      this.#fromFile = backends
    } catch (error) {
      this.#say(file, `${(error as Error).message}; the backends stay as they are`)
      return
    }
    await this.refresh()
  }

  async #read(path: string): Promise<BackendConfig[]> {
    const list = await readListFile(path, LIST)
    try {
      return buildBackends(list)
    } catch (error) {
      throw new UserError(`${path}: ${(error as Error).message}`)
    }
  }

  async #refresh(): Promise<void> {
    const configs = [...this.#options.backends, ...this.#fromFile]
    const found = await Promise.all(configs.map((config) => endpointsOf(config, this.#options.lookup)))
    if (this.#closed) return
    const wanted = new Map<string, Endpoint>()
    for (const endpoint of found.flat()) {
      if (!wanted.has(endpoint.url)) wanted.set(endpoint.url, endpoint)
      else this.#say(endpoint.url, `${endpoint.config.url} is ${endpoint.url}, which is a backend already`)
    }
    for (const [url, member] of this.#members) if (!wanted.has(url)) this.#leave(url, member)
    for (const [url, endpoint] of wanted) if (!this.#members.has(url)) this.#join(url, endpoint)
  }

  #join(url: string, endpoint: Endpoint): void {
    const dispatcher = this.#dispatcher(endpoint)
    const host = this.#open(endpoint, dispatcher)
    this.#members.set(url, { host, dispatcher })
    this.#warnOf(host)
    this.#sink.joined(host)
  }

  #leave(url: string, member: Member): void {
    this.#members.delete(url)
    this.#sink.leaves(member.host)
    void member.host.drain().then(() => close(member))
  }

  #open(endpoint: Endpoint, dispatcher: Agent): ReplicaHost {
    const { apps, probeMs = PROBE_MS, siblings = null } = this.#options
    const { config, url, host } = endpoint
    const { weight, models, apiKey, priority, prefill } = config
    const name = new URL(url).host
    // It answers offers itself.
    if (config.kind === "slos-serve") return new RemoteReplica({ name, url, apiKey, beside: this.#beside })
    const kind = config.kind === null ? null : BACKEND_KINDS[config.kind]
    return new RemoteHost({
      ...{ name, url, kind, weight, models, apiKey, apps, priority, prefill, dispatcher, probeMs },
      ...{ timeouts: this.#timeouts, hostHeader: host, planner: this.#plannerOf(endpoint, name) },
      ...{ kin: this.#kinOf(config), siblings, beside: this.#beside },
    })
  }

  readonly #beside = (): Serving | null => {
    for (const { host } of this.#members.values())
      if (host.state === "ready" && host.info !== null)
        return { name: host.name, model: host.info.model.name }
    return null
  }

  /** Engines of one kind that have the same models are taken to be alike, until more is known of each. */
  #kinOf({ kind, models }: BackendConfig): CostFit {
    const name = JSON.stringify([kind, ...models.values()])
    const known = this.#kin.get(name)
    if (known !== undefined) return known
    const kin = new CostFit(kind === null || kind === "slos-serve" ? undefined : BACKEND_KINDS[kind].prior)
    this.#kin.set(name, kin)
    return kin
  }

  #plannerOf({ config, url: own }: Endpoint, name: string): RemotePlanner | null {
    const { planner, apiKey } = config
    if (planner === null) return null
    const url = planner.startsWith(":") ? `http://${new URL(own).hostname}${planner}` : planner
    const log = (message: string) => this.#say(`planner of ${name}`, message)
    return new RemotePlanner({ name: `${name}'s planner`, url, apiKey, log })
  }

  get #timeouts(): Timeouts {
    return { ...TIMEOUTS, ...this.#options.timeouts }
  }

  #dispatcher({ host }: Endpoint): Agent {
    const timeout = this.#timeouts.connectMs
    // The certificate is of the name, whatever address it was found at.
    const servername = host === null ? {} : { servername: host.replace(/:\d+$/, "") }
    return new Agent({ connect: { timeout, ...servername } })
  }

  #warnOf(host: ReplicaHost): void {
    host.onState((state) => {
      if (state === "ready")
        this.#say(host.name, `backend ${host.name} serves ${host.info?.model.name}`, "info")
      else if (state === "down" || state === "starting")
        this.#say(host.name, `backend ${host.name} is not there (${host.detail}); it is tried again`)
    })
  }

  #say(about: string, message: string, level: "warn" | "info" = "warn"): void {
    if (this.#said.get(about) === message) return
    this.#said.set(about, message)
    this.#options.log?.(message, level)
  }
}

async function close({ host, dispatcher }: Member): Promise<void> {
  await host.close()
  await dispatcher.close()
}
