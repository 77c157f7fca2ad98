/** Runs the server: listen, prepare the engine, announce, drain on a signal. */
import type { AddressInfo } from "node:net"
import { setFlagsFromString } from "node:v8"
import type { FastifyInstance } from "fastify"
import pc from "picocolors"
import { defaultSloClasses, readSloClasses } from "../config/slo-classes.ts"
import type { PolicyOptions } from "../core/options.ts"
import { UserError, userError } from "../errors.ts"
import { buildServer } from "../http/server.ts"
import { ReplicaDriver } from "../replica/driver.ts"
import { Service, ServiceHost } from "../serve/service.ts"
import type { Reporter } from "./reporter.ts"
import { prepareEngine } from "./serve-engine.ts"
import type { ServeOptions } from "./serve-options.ts"
import { onSignals } from "./serve-signals.ts"

/** V8 would let garbage grow to several times what lives, then stop for all of it at once
 * (bench/results/heap-growth.json). */
const HEAP_GROWTH = "--heap-growing-percent=50"

export async function serve(options: ServeOptions, reporter: Reporter): Promise<void> {
  setFlagsFromString(HEAP_GROWTH)
  const classes = options.config === undefined ? defaultSloClasses() : readSloClasses(options.config)
  const host = new ServiceHost()
  host.detail = "the model is being loaded"
  const app = buildServer({
    host,
    logger: reporter.log,
    bodyLimit: options.bodyLimit,
    requestTimeoutMs: options.requestTimeout * 1000,
  })
  // Before the model: a taken port must not be found out after minutes of loading.
  await listen(app, options)
  onSignals(app, host, options.drainTimeout, reporter)
  try {
    const { engine, cost } = await prepareEngine(options, reporter)
    const driver = new ReplicaDriver({
      engine,
      config: {
        limits: engine.limits,
        cost,
        policy: options.policy,
        apps: classes.all.length,
        maxQueue: options.maxQueue,
        options: policyOptions(options),
      },
      log: (message, level) => reporter.log[level](message),
      watch: { leastUs: options.stepTimeout === 0 ? Number.POSITIVE_INFINITY : options.stepTimeout * 1e6 },
    })
    const { policy, defaultMaxTokens, parseSpecial } = options
    const service = new Service({ engine, driver, classes, policy, defaultMaxTokens, parseSpecial })
    await service.intake.warmUp()
    host.ready(service)
    announce(app, options, service, reporter)
  } catch (error) {
    await app.close()
    throw error
  }
}

/** Only what was given: the rest follows from the profile. */
function policyOptions(options: ServeOptions): Partial<PolicyOptions> {
  const { margin, maxBatchMs, bestEffortMs, tokenBudget, admission, speculate, maxSpeculation } = options
  return {
    ...(speculate !== "off" && { speculation: "on", maxSpeculation }),
    ...(margin !== undefined && { margin }),
    ...(maxBatchMs !== undefined && { maxBatchUs: maxBatchMs * 1000 }),
    ...(bestEffortMs !== undefined && { bestEffortBatchUs: bestEffortMs * 1000 }),
    ...(tokenBudget !== undefined && { tokenBudget }),
    ...(admission !== undefined && { admission }),
  }
}

async function listen(app: FastifyInstance, options: ServeOptions): Promise<void> {
  const { host, port } = options
  try {
    await app.listen({ host, port })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === "EADDRINUSE") throw userError("port_in_use", { host, port })
    if (code === undefined || error instanceof UserError) throw error
    throw userError("cannot_listen", { host, port, detail: code ?? message }, { cause: error })
  }
}

function announce(app: FastifyInstance, options: ServeOptions, service: Service, reporter: Reporter): void {
  const { port } = app.server.address() as AddressInfo
  const anywhere = options.host === "0.0.0.0" || options.host === "::"
  const name = anywhere ? "localhost" : options.host.includes(":") ? `[${options.host}]` : options.host
  const url = `http://${name}:${port}`
  const body = '{"messages":[{"role":"user","content":"Say hello."}],"max_tokens":64}'
  const curl = `curl ${url}/v1/chat/completions -H 'content-type: application/json' -d '${body}'`
  const { model } = service.engine
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
      pc.dim("  Ctrl+C stops: running answers are finished first, a second Ctrl+C stops at once."),
      "",
    ],
    { url, model: model.name, random: model.random, policy: service.policy, page: `${url}/`, curl },
  )
}
