/** Runs a planner until it is told to stop. */
import type { AddressInfo } from "node:net"
import { setFlagsFromString } from "node:v8"
import type { FastifyInstance } from "fastify"
import pc from "picocolors"
import { checkTenants } from "../config/tenants.ts"
import type { PolicyOptions } from "../core/options.ts"
import { buildServer } from "../http/server.ts"
import { cacheFolder } from "../models/cache.ts"
import { listenAt, type PlannerSocket } from "../planner-process/listen.ts"
import { PlannerProcess } from "../planner-process/planner-process.ts"
import { PlannerTenants } from "../planner-process/planner-tenants.ts"
import { takePrecedence } from "../planner-process/precedence.ts"
import { RecordingFile } from "../planner-process/recording.ts"
import { StepTimes } from "../planner-process/step-times.ts"
import { warmUp } from "../planner-process/warm-up.ts"
import { Service, ServiceHost } from "../serve/service.ts"
import { listen } from "./http-listen.ts"
import { checkWritable } from "./output.ts"
import type { PlannerCommand } from "./planner-options.ts"
import type { Reporter } from "./reporter.ts"
import { configOf, HEAP_GROWTH } from "./serve-parts.ts"
import { packageVersion } from "./version.ts"

/** A process that has just been started is waited for; an engine's first steps are not to. */
const WARM_UP_MS = 300

type Options = PlannerCommand & { socket: string }

interface Running {
  planner: PlannerProcess
  socket: PlannerSocket
  app: FastifyInstance | null
  recording: RecordingFile | null
  reporter: Reporter
}

export async function runPlanner(
  options: Options,
  policyOptions: Partial<PolicyOptions>,
  reporter: Reporter,
): Promise<void> {
  setFlagsFromString(HEAP_GROWTH)
  const { classes, tenants: named } = configOf(options)
  checkTenants(named)
  checkWritable(options.record)
  const version = packageVersion()
  const tenants = new PlannerTenants({ tenants: named })
  const recording = recordingOf(options.record, version, reporter)
  const planner = new PlannerProcess({
    ...{ classes, tenants, policy: options.policy, policyOptions, version, recording },
    stepTimesOf: (engine) =>
      new StepTimes(engine, {
        cacheDir: cacheFolder(),
        log: (message, level) => reporter.log[level](message),
      }),
    maxLagUs: options.maxLag * 1000,
    log: (message, level) => reporter.log[level](message),
  })
  const socket = await listenAt(options.socket, (connection) => planner.connect(connection))
  takePrecedence()
  warmUp({ classes, policy: options.policy, policyOptions }, WARM_UP_MS)
  try {
    const app = options.metricsPort === undefined ? null : await openPort(options, planner, reporter)
    announce(options, socket, app, reporter)
    onEnds({ planner, socket, app, recording, reporter }, options.exitWhenIdle)
  } catch (error) {
    await socket.close()
    throw error
  }
}

/** The server's own pages, over the planner's engines. */
async function openPort(
  options: Options,
  planner: PlannerProcess,
  reporter: Reporter,
): Promise<FastifyInstance> {
  const { tenants, classes, policy } = planner.options
  const host = new ServiceHost(tenants.all)
  host.detail = "no engine has been connected yet"
  const app = buildServer({ host, logger: reporter.log })
  planner.whenFirst(() => {
    const log = reporter.log.info.bind(reporter.log)
    const service = new Service({ front: planner.front, classes, policy, tenants: tenants.all, log })
    planner.figures.register(service.metrics.registry, () => planner.sessions)
    host.ready(service)
  })
  await listen(app, { host: options.host, port: options.metricsPort! }, "--metrics-port")
  return app
}

function recordingOf(path: string | undefined, version: string, reporter: Reporter): RecordingFile | null {
  if (path === undefined) return null
  return new RecordingFile(path, version, (message) =>
    reporter.warn(`--record ${path}: ${message}; nothing more is recorded`),
  )
}

function announce(
  options: Options,
  socket: PlannerSocket,
  app: FastifyInstance | null,
  reporter: Reporter,
): void {
  const port = app === null ? null : (app.server.address() as AddressInfo).port
  const name = options.host.includes(":") ? `[${options.host}]` : options.host
  const url = port === null ? null : `http://${name}:${port}`
  reporter.say(
    [
      "",
      `${pc.bold("SLOs-Serve")} plans for vLLM at ${pc.cyan(socket.path)}`,
      "",
      ...(url === null ? [] : [`  page     ${pc.cyan(`${url}/`)}`, `  metrics  ${url}/metrics`, ""]),
      pc.dim(`  policy ${options.policy}`),
      pc.dim("  Ctrl+C stops: the engines go on by themselves."),
      "",
    ],
    { socket: socket.path, page: url === null ? null : `${url}/`, policy: options.policy },
  )
}

const IDLE_LOOK_MS = 1000
/** A second signal, or a client of the port that does not go. */
const LAST_MS = 2000

function onEnds(running: Running, idleSec: number): void {
  const { planner, reporter } = running
  let requested = false
  const stop = async (why: string) => {
    if (requested) process.exit(1)
    requested = true
    reporter.warn(`${why}: ${planner.sessions.length} engines go on by themselves`)
    setTimeout(() => process.exit(0), LAST_MS).unref()
    await close(running)
    reporter.done("stopped")
    process.exit(0)
  }
  process.on("SIGTERM", (signal) => void stop(signal))
  process.on("SIGINT", (signal) => void stop(signal))
  process.on("SIGHUP", () =>
    reporter.warn("SIGHUP is ignored: nothing is read anew; SIGTERM stops the planner"),
  )
  if (idleSec === 0) return
  let sinceMs = performance.now()
  setInterval(() => {
    if (planner.sessions.length > 0) sinceMs = performance.now()
    else if (performance.now() - sinceMs > idleSec * 1000) void stop(`no engine for ${idleSec} s`)
  }, IDLE_LOOK_MS).unref()
}

async function close({ planner, socket, app, recording }: Running): Promise<void> {
  await planner.goodbye("the planner is being shut down")
  await Promise.all([socket.close(), app?.close(), recording?.close()])
}
