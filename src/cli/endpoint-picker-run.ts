/** Runs an endpoint picker until it is told to stop. */
import { readFileSync } from "node:fs"
import { createSecureContext } from "node:tls"
import pc from "picocolors"
import { readSloClasses } from "../config/file.ts"
import { defaultSloClasses, type SloClasses } from "../config/slo-classes.ts"
import { UserError } from "../errors.ts"
import { BACKEND_KINDS } from "../fleet/backends/kinds.ts"
import type { Chooser } from "../fleet/picker/chooser.ts"
import { LeastLoaded } from "../fleet/picker/least-loaded.ts"
import { EndpointPicker } from "../fleet/picker/run.ts"
import type { TlsFiles } from "../fleet/picker/server.ts"
import { Twins } from "../fleet/picker/twins.ts"
import type { PickerCommand } from "./endpoint-picker-options.ts"
import type { Reporter } from "./reporter.ts"
import { warmUpPicker } from "./warm-up-picker.ts"
import { warmed } from "./warmed.ts"

export async function runPicker(options: PickerCommand, reporter: Reporter): Promise<void> {
  const classes = options.config === undefined ? defaultSloClasses() : readSloClasses(options.config)
  const alike = {
    ...{ classes, named: 1 + options.fallbacks },
    rewrite: { priority: options.priority, sloArguments: options.sloArguments ?? false },
  }
  const picker = new EndpointPicker({
    ...alike,
    host: options.host,
    port: options.port,
    metricsPort: options.metrics ? options.metricsPort : null,
    tls: tlsOf(options),
    endpoints: options.endpoint ?? [],
    endpointsFile: options.endpointsFile ?? null,
    flow: {
      mostHeld: options.mostHeld,
      mostHeldBytes: options.heldMemory,
      longestHoldUs: options.longestHold * 1e6,
      late: options.late,
    },
    bodyLimit: options.bodyLimit,
    chooser: chooserOf(options, classes, reporter),
    warn: (message) => reporter.warn(message),
  })
  onSignals(picker, options.drainTimeout, reporter)
  const { port, metricsPort } = await start(picker, () => {
    const chooser = chooserOf({ ...options, probeEvery: 0 }, classes, reporter)
    return warmed((forMs) => warmUpPicker({ ...alike, chooser }, forMs), reporter)
  })
  announce(options, port, metricsPort, picker, reporter)
}

function chooserOf(options: PickerCommand, classes: SloClasses, reporter: Reporter): Chooser {
  const { by, kind, inFlight, priority, probeEvery } = options
  if (by === "load") return new LeastLoaded(inFlight)
  return new Twins({
    ...{ kind: BACKEND_KINDS[kind], byPriority: priority !== "off" },
    ...{ apps: classes.all.length, mostInFlight: inFlight },
    probes: probeEvery === 0 ? null : { everyMs: probeEvery, scheme: options.probeTls ? "https" : "http" },
    nowUs: () => performance.now() * 1000,
    warn: (message) => reporter.warn(message),
  })
}

/** What has begun to listen is closed when the rest fails: the process would stay. */
async function start(
  picker: EndpointPicker,
  warm: () => Promise<void>,
): Promise<{ port: number; metricsPort: number | null }> {
  try {
    return await picker.start(warm)
  } catch (error) {
    await picker.stop(0)
    throw error
  }
}

/** Read once here, so that a wrong file is told at the start and not with the first connection. */
function tlsOf({ tlsCert, tlsKey, tlsClientCa }: PickerCommand): TlsFiles | null {
  if (tlsCert === undefined || tlsKey === undefined) return null
  const read = (option: string, path: string) => {
    try {
      return readFileSync(path)
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      throw new UserError(`${option}: cannot read ${path} (${code ?? message})`)
    }
  }
  const cert = read("--tls-cert", tlsCert)
  const key = read("--tls-key", tlsKey)
  const ca = tlsClientCa === undefined ? undefined : read("--tls-client-ca", tlsClientCa)
  try {
    createSecureContext({ cert, key, ca })
  } catch (error) {
    throw new UserError(
      `--tls-cert ${tlsCert}, --tls-key ${tlsKey}: not a certificate and its key in PEM (${(error as Error).message})`,
    )
  }
  return { certificate: tlsCert, key: tlsKey, clientAuthority: tlsClientCa ?? null }
}

function announce(
  { host, tlsCert }: PickerCommand,
  port: number,
  metricsPort: number | null,
  picker: EndpointPicker,
  reporter: Reporter,
): void {
  const name = host.includes(":") ? `[${host}]` : host
  const grpc = `${name}:${port}`
  const metrics = metricsPort === null ? null : `http://${name}:${metricsPort}/metrics`
  const { endpoints } = picker
  const many =
    endpoints.length > 8
      ? `${endpoints.slice(0, 8).join(", ")} and ${endpoints.length - 8} more`
      : endpoints.join(", ")
  reporter.say(
    [
      "",
      `${pc.bold("SLOs-Serve")} picks endpoints for a gateway at ${pc.cyan(grpc)} (gRPC${tlsCert === undefined ? "" : " over TLS"})`,
      "",
      `  endpoints  ${many || "those that the gateway names"}`,
      ...(metrics === null ? [] : [`  metrics    ${pc.cyan(metrics)}`]),
      "",
      pc.dim("  Ctrl+C stops: requests under way go on to their end, a second Ctrl+C stops at once."),
      "",
    ],
    { grpc, metrics, endpoints },
  )
}

function onSignals(picker: EndpointPicker, drainSec: number, reporter: Reporter): void {
  let requested = false
  const stop = async (signal: NodeJS.Signals) => {
    if (requested) process.exit(1)
    requested = true
    reporter.warn(`${signal}: ${picker.streams} requests go on (${drainSec} s at most)`)
    const broken = await picker.stop(drainSec * 1000)
    if (broken > 0) reporter.warn(`${broken} answers were broken off`)
    reporter.done("stopped")
    process.exit(0)
  }
  process.on("SIGTERM", stop)
  process.on("SIGINT", stop)
  process.on("SIGHUP", () => reporter.warn("SIGHUP is ignored: the endpoints are read anew by themselves"))
}
