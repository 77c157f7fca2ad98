/** Runs the server: listen, prepare the engine, announce, drain on a signal. */
import type { AddressInfo } from "node:net"
import { setFlagsFromString } from "node:v8"
import type { FastifyInstance } from "fastify"
import pc from "picocolors"
import type { ServerConfig } from "../config/file.ts"
import { SharedResponses } from "../http/responses/shared-store.ts"
import type { KeepsResponses } from "../http/responses/store.ts"
import { buildServer, usualBodyMemory } from "../http/server.ts"
import { readPair } from "../http/tls.ts"
import type { Advisor } from "../scale/advisor.ts"
import type { Front } from "../serve/front.ts"
import { LocalFront } from "../serve/local-front.ts"
import { startAdvisor } from "../serve/scale.ts"
import { Service, ServiceHost } from "../serve/service.ts"
import type { Tenants } from "../serve/tenants.ts"
import type { Siblings } from "../siblings/siblings.ts"
import type { ApiOptions } from "./api-options.ts"
import { listen } from "./http-listen.ts"
import { liveOf, Reloader, tlsFiles } from "./reload.ts"
import type { Reporter } from "./reporter.ts"
import { prepareEngine, sayOfLibrary } from "./serve-engine.ts"
import {
  type BackendParts,
  checkSeveral,
  GATEWAY,
  type GatewayParts,
  gatewayOf,
  openBackends,
  warmedGateway,
} from "./serve-gateway.ts"
import type { ServeOptions } from "./serve-options.ts"
import { configOf, HEAP_GROWTH, mostApps, openDriver, tenantsOf, warmedUp } from "./serve-parts.ts"
import { checkPeers, peersOf, SinglePeer } from "./serve-peers.ts"
import { onSignals } from "./serve-signals.ts"
import { systemdOf } from "./serve-systemd.ts"
import { traceTo } from "./serve-traces.ts"
import { warmUpParent, warmUpServer } from "./warm-up.ts"

/** `siblings`: other processes that serve the same address; null: this one is told how many there are to be. */
export async function serve(
  options: ServeOptions,
  reporter: Reporter,
  siblings: Siblings | null = null,
): Promise<void> {
  const config = configOf(options)
  const { classes, backends } = config
  const gateway = gatewayOf(options, backends)
  // Of several processes their parent speaks.
  const peers = siblings === null ? peersOf(options) : null
  checkPeers(peers, gateway !== null)
  const single = peers === null || options.gateways > 1 ? null : new SinglePeer(peers, options)
  const tenants = tenantsOf(options, config, single?.siblings ?? siblings)
  if (options.gateways > 1 && siblings === null) {
    checkSeveral(options, gateway)
    const { serveGateways } = await import("./serve-gateways.ts")
    return serveGateways(options, reporter)
  }
  const policy = gateway === null ? options.policy : GATEWAY
  const most = mostApps(options, config)
  const served = { tenants, config, mostApps: most, siblings, responses: single?.responses }
  await serveFront(options, served, reporter, async (host, onClose) => {
    await single?.open(most, onClose, reporter)
    const parts = { config, host, apps: most, tenants, siblings: single?.siblings ?? siblings }
    const front =
      gateway === null
        ? await openFront(options, { config, apps: most, tenants }, reporter)
        : await openGatewayFront(gateway, options, parts, reporter)
    const { defaultMaxTokens } = options
    const service = new Service({ front, classes, policy, tenants, defaultMaxTokens, mostApps: most })
    single?.register(service.metrics.registry)
    // One of several forecasts, for all of them.
    if (options.scaleEvery > 0 && (siblings?.index ?? 0) === 0)
      service.advisedBy(advisorOf(service, options, reporter, siblings))
    return service
  })
}

export interface ServedParts {
  tenants: Tenants
  config: ServerConfig
  mostApps: number
  /** Default: there are none. */
  siblings?: Siblings | null
  /** What keeps responses. Default: this process, or its parent. */
  responses?: KeepsResponses | undefined
}

/** Listens at once, and serves what `open` makes once that is there. What it gives to `onClose` is called when all answers are
 * out, also when `open` rejects. */
export async function serveFront(
  options: ApiOptions,
  { tenants, config, mostApps, siblings = null, responses }: ServedParts,
  reporter: Reporter,
  open: (host: ServiceHost, onClose: (close: () => Promise<void>) => void) => Promise<Service>,
): Promise<void> {
  setFlagsFromString(HEAP_GROWTH)
  const host = new ServiceHost(tenants)
  host.detail = "the model is being loaded"
  const files = tlsFiles(options)
  const live = liveOf(options)
  const app = buildServer({
    ...{ host, live, logger: reporter.log },
    ...(files !== null && { tls: readPair(files) }),
    requestTimeoutMs: options.requestTimeout * 1000,
    ...partsOf(options, siblings),
    ...(responses && { responses }),
  })
  const closers: (() => Promise<void>)[] = []
  app.addHook("onClose", async () => {
    for (const close of closers) await close()
  })
  // Before the model: a taken port must not be found out after minutes of loading.
  await listen(app, options, "--port")
  const reloader = new Reloader({ options, config, mostApps, live, host, app, reporter, siblings })
  closers.push(async () => reloader.close())
  const systemd = await systemdOf(reporter)
  const reload = (signal: string, text?: string) => {
    if (text !== undefined) options.configText = text
    const work = () => reloader.reload(signal)
    if (systemd === null) work()
    else systemd.reloading(work)
  }
  systemd?.status("the model is being loaded")
  const stopping = (text: string) => systemd?.stopping(text)
  const source = siblings ?? process
  onSignals(app, host, { drainSec: () => options.drainTimeout, reload, stopping, source }, reporter)
  try {
    const service = await open(host, (close) => closers.push(close))
    if (options.otlpEndpoint !== undefined)
      closers.push(await traceTo(options.otlpEndpoint, service, reporter))
    host.ready(service)
    const url = announce(app, options, { service, tenants }, reporter)
    systemd?.ready(`serves ${service.front.model.name} at ${url}`)
  } catch (error) {
    await app.close()
    throw error
  }
}

/** Of what all processes of an address have together: this one's part, or where the whole is. */
function partsOf(
  { storedResponses: most, storedResponseBytes: mostBytes, bodyLimit }: ApiOptions,
  siblings: Siblings | null,
) {
  if (siblings === null) return { responses: { most, mostBytes } }
  return {
    siblings,
    responses: new SharedResponses(siblings, most > 0 && mostBytes > 0),
    bodyMemory: Math.max(bodyLimit, siblings.partOf(usualBodyMemory(bodyLimit))),
  }
}

/** One replica in this process, or several in their own. */
async function openFront(
  options: ServeOptions,
  { config, apps, tenants }: { config: ServerConfig; apps: number; tenants: Tenants },
  reporter: Reporter,
): Promise<Front> {
  const several = options.replicas > 1
  sayOfLibrary(options, reporter)
  const warm = warmedUp(several ? warmUpParent : warmUpServer, options, config, reporter)
  if (several) {
    const { openFleet } = await import("./serve-fleet.ts")
    const front = await openFleet(options, { apps, tenants }, reporter)
    await warm
    return front
  }
  const { engine, cost } = await prepareEngine(options, reporter, warm)
  const driver = openDriver(options, { engine, cost, apps, tenants }, reporter)
  const { defaultMaxTokens, parseSpecial } = options
  const front = new LocalFront(engine, driver, { defaultMaxTokens, parseSpecial, tenants })
  await front.intake.warmUp()
  return front
}

function openGatewayFront(
  gateway: GatewayParts,
  options: ServeOptions,
  { config, ...parts }: Omit<BackendParts, "warm"> & { config: ServerConfig },
  reporter: Reporter,
): Promise<Front> {
  const warm = warmedGateway(config.classes, reporter)
  return openBackends(gateway, options, { ...parts, warm }, reporter)
}

function advisorOf(
  service: Service,
  options: ServeOptions,
  reporter: Reporter,
  siblings: Siblings | null,
): Advisor {
  const { scaleTarget, scaleEvery, scaleWindow, scaleDownAfter, coldStart, mostReplicas } = options
  return startAdvisor(
    service,
    {
      ...{ target: scaleTarget, everyS: scaleEvery, windowS: scaleWindow, downAfterS: scaleDownAfter },
      ...{ coldStartS: coldStart, mostReplicas },
    },
    (message) => reporter.log.warn(message),
    siblings,
  )
}

function announce(
  app: FastifyInstance,
  options: ApiOptions,
  { service, tenants }: { service: Service; tenants: Tenants },
  reporter: Reporter,
): string {
  const { port } = app.server.address() as AddressInfo
  const anywhere = options.host === "0.0.0.0" || options.host === "::"
  const name = anywhere ? "localhost" : options.host.includes(":") ? `[${options.host}]` : options.host
  const url = `http${options.tlsCert === undefined ? "" : "s"}://${name}:${port}`
  const body = '{"messages":[{"role":"user","content":"Say hello."}],"max_tokens":64}'
  const key = tenants.needsKey ? ` -H "authorization: Bearer $KEY"` : ""
  const curl = `curl ${url}/v1/chat/completions -H 'content-type: application/json'${key} -d '${body}'`
  const { model } = service.front
  reporter.say(
    [
      "",
      `${pc.bold("SLOs-Serve")} serves ${pc.bold(model.name)}${model.random ? " (random weights)" : ""} at ${pc.cyan(url)}`,
      "",
      `  page   ${pc.cyan(`${url}/`)}`,
      `  API    ${url}/v1`,
      `  try    ${curl}`,
      "",
      pc.dim(`  policy ${service.policy}; classes ${service.classes.all.map((c) => c.name).join(", ")}`),
      ...tenantLine(tenants),
      pc.dim("  Ctrl+C stops: running answers are finished first, a second Ctrl+C stops at once."),
      "",
    ],
    {
      ...{ url, model: model.name, random: model.random, policy: service.policy, page: `${url}/`, curl },
      ...(tenants.configured.length > 1 && { tenants: tenants.configured }),
    },
  )
  return url
}

/** Nothing where all requests are of one tenant. */
function tenantLine(tenants: Tenants): string[] {
  const { configured, needsKey, trustsHeader } = tenants
  if (configured.length < 2) return []
  const shares = configured.map((name) => `${name} ${tenants.weightOf(name)}`).join(", ")
  const by = [
    ...(needsKey ? ["requests need a key"] : []),
    ...(trustsHeader ? ["x-llm-d-inference-fairness-id names the tenant"] : []),
  ]
  return [pc.dim(`  tenants and their weights: ${shares}; ${by.join("; ")}`)]
}
