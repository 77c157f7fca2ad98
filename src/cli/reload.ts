/** What a server does at SIGHUP: it reads its config again, and goes on by it. Whatever is wrong with it, it keeps the one it has. */
import type { Server as HttpsServer } from "node:https"
import type { FastifyInstance } from "fastify"
import type { ServerConfig } from "../config/file.ts"
import { SETTINGS } from "../config/settings.ts"
import { renewClasses, type SloClasses } from "../config/slo-classes.ts"
import { UserError } from "../errors.ts"
import type { LiveOptions } from "../http/server.ts"
import { renewPair, type TlsFiles, watchPair } from "../http/tls.ts"
import type { ServiceHost } from "../serve/service.ts"
import type { Siblings } from "../siblings/siblings.ts"
import type { ApiOptions } from "./api-options.ts"
import { renewableOf } from "./option-sources.ts"
import type { Reporter } from "./reporter.ts"
import { configOf, tenancyOf } from "./serve-parts.ts"

/** Options that take effect at once. */
const LIVE = [
  ...["objectives", "requireKey", "trustFairnessId", "allowedHost", "protect", "maxQueue", "bodyLimit"],
  ...["requestTimeout", "drainTimeout", "logLevel", "tlsCert", "tlsKey"],
]

export interface Reloaded {
  options: ApiOptions
  /** As it was read; its classes are those that the server has. */
  config: ServerConfig
  /** Most classes that there can be. */
  mostApps: number
  live: LiveOptions
  host: ServiceHost
  app: FastifyInstance
  reporter: Reporter
  /** Each has its part of the queue; null: there are none. */
  siblings: Siblings | null
}

interface Differences {
  /** Fields of the file that take effect, and those that only a restart does. */
  changed: string[]
  restart: string[]
  /** Of options that take effect. */
  values: Record<string, unknown>
}

export class Reloader {
  readonly #parts: Reloaded
  readonly #classes: SloClasses
  #config: ServerConfig
  /** Headers for pages of other origins are written where there were such from the start. */
  readonly #hasCors: boolean
  #stopWatching: () => void = () => {}

  constructor(parts: Reloaded) {
    this.#parts = parts
    this.#hasCors = parts.live.corsOrigins.length > 0
    this.#config = parts.config
    this.#classes = parts.config.classes
    this.#watch()
  }

  /** Never throws: what it did, or why not, is one line of the log. */
  reload(signal: string): void {
    const { options, reporter } = this.#parts
    if (options.config === undefined) {
      this.#renewTls(signal)
      const what = options.tlsCert === undefined ? "nothing" : "but for the certificate nothing"
      reporter.warn(
        `${signal} is ignored: there is no --config, ${what} is read anew; SIGTERM stops the server`,
      )
      return
    }
    try {
      reporter.warn(`${signal}: ${options.config} is read again: ${this.#apply()}`)
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      reporter.warn(`${signal}: all stays as it was: ${error.message}`)
    }
  }

  close(): void {
    this.#stopWatching()
  }

  /** Nothing is changed before all is known to be right. */
  #apply(): string {
    const { options, host, mostApps, app } = this.#parts
    const next = configOf(options)
    const { changed, restart, values } = this.#differences(next)
    const now = { ...options, ...values }
    const tenancy = tenancyOf(now, next)
    const files = tlsFiles(now)
    if (files !== null && isTls(app)) renewPair(tlsServer(app), files)
    const before = JSON.stringify(this.#classes.all)
    const tooMany = renewClasses(this.#classes, next.classes, mostApps)
    if (tooMany.length > 0) restart.push(`the classes (${tooMany.join(", ")} would be too many)`)
    else if (JSON.stringify(this.#classes.all) !== before) changed.push("classes")
    Object.assign(options, values)
    host.tenants.renew(tenancy)
    this.#config = { ...next, classes: this.#classes }
    this.#goBy()
    return [
      changed.length > 0 ? `changed: ${changed.join(", ")}` : "nothing changed",
      ...(restart.length > 0 ? [`only a restart changes ${restart.join(", ")}`] : []),
    ].join("; ")
  }

  /** What the options say now is what is done. */
  #goBy(): void {
    const { options, live, host, app, reporter, siblings } = this.#parts
    Object.assign(live, liveOf(options))
    app.server.requestTimeout = options.requestTimeout * 1000
    app.server.headersTimeout = options.requestTimeout * 1000
    if (options.logLevel !== undefined) reporter.log.level = options.logLevel
    const { weights, named: tenants } = host.tenants
    const maxQueue = siblings?.partOf(options.maxQueue) ?? options.maxQueue
    host.service?.front.renew?.({ maxQueue, weights, tenants })
    this.#watch()
  }

  #differences(next: ServerConfig): Differences {
    const { options } = this.#parts
    const said = new Map(next.settings.map(({ option, value }) => [option, value]))
    const own = options as unknown as Record<string, unknown>
    const found: Differences = { changed: [], restart: [], values: {} }
    for (const [option, usual] of renewableOf(options)) {
      const value = said.has(option) ? said.get(option) : usual
      const field = fieldOf(option)
      if (field === null || isSame(value, own[option])) continue
      const isLive = this.#isLive(option)
      if (isLive) found.values[option] = value
      const list = isLive ? found.changed : found.restart
      list.push(field)
    }
    for (const section of ["tenants", "keys"] as const)
      if (!isSame(next[section], this.#config[section])) found.changed.push(section)
    if (!isSame(shown(next.backends), shown(this.#config.backends))) found.restart.push("backends")
    return found
  }

  #isLive(option: string): boolean {
    if (option === "corsOrigin") return this.#hasCors
    return LIVE.includes(option) && (!option.startsWith("tls") || isTls(this.#parts.app))
  }

  #watch(): void {
    this.#stopWatching()
    const files = tlsFiles(this.#parts.options)
    const changed = () => this.#renewTls("the certificate changed")
    this.#stopWatching = files === null ? () => {} : watchPair(files, changed)
  }

  #renewTls(why: string): void {
    const { options, app, reporter } = this.#parts
    const files = tlsFiles(options)
    if (files === null || !isTls(app)) return
    try {
      renewPair(tlsServer(app), files)
      reporter.warn(`${why}: new connections get it`)
    } catch (error) {
      // Half of a pair: the other file comes soon.
      reporter.warn(`${why}: the one before is kept: ${(error as Error).message}`)
    }
  }
}

const isTls = (app: FastifyInstance): boolean => "setSecureContext" in app.server
const tlsServer = (app: FastifyInstance): HttpsServer => app.server as unknown as HttpsServer

/** Of the two options; null: no TLS. Throws UserError for one without the other. */
export function tlsFiles({
  tlsCert: cert,
  tlsKey: key,
}: Pick<ApiOptions, "tlsCert" | "tlsKey">): TlsFiles | null {
  if (cert !== undefined && key !== undefined) return { cert, key }
  if (cert === undefined && key === undefined) return null
  throw new UserError(
    "--tls-cert and --tls-key belong together: give both (in the config: tls.cert and tls.key)",
  )
}

export function liveOf({
  bodyLimit,
  host,
  allowedHost = [],
  protect = [],
  corsOrigin = [],
}: ApiOptions): LiveOptions {
  return { bodyLimit, protect, corsOrigins: corsOrigin, hosts: { address: host, allowed: allowedHost } }
}

function fieldOf(option: string): string | null {
  for (const [section, fields] of Object.entries(SETTINGS))
    for (const [name, field] of Object.entries(fields))
      if (field.option === option) return `${section}.${name}`
  return null
}

const isSame = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)
/** Maps are nothing to JSON. */
const shown = (backends: ServerConfig["backends"]) =>
  backends.map((backend) => ({ ...backend, models: [...backend.models] }))
