/** A whole server on the fake engine in real time, for tests: everything above the engine is what users get. */
import type { AddressInfo } from "node:net"
import { defaultSloClasses, type SloClasses } from "../config/slo-classes.ts"
import type { PolicyOptions } from "../core/options.ts"
import type { EngineLimits } from "../core/protocol.ts"
import { type FakeOptions, fakeEngine } from "../engine/fake/engine.ts"
import type { Engine } from "../engine/port.ts"
import type { JournalOptions } from "../explain/journal.ts"
import type { Clock } from "../replica/clock.ts"
import { ReplicaDriver } from "../replica/driver.ts"
import type { WatchOptions } from "../replica/engine-watch.ts"
import { LocalFront } from "../serve/local-front.ts"
import type { ParseSpecial } from "../serve/prompt-reader.ts"
import { Service, ServiceHost } from "../serve/service.ts"
import { type TenantOptions, Tenants } from "../serve/tenants.ts"
import { buildServer, type ServerOptions } from "./server.ts"

export interface TestServerOptions extends Omit<ServerOptions, "host"> {
  fake?: Partial<FakeOptions>
  limits?: Partial<EngineLimits>
  /** Instead of the fake one. */
  engine?: Engine
  /** Around the engine. */
  wrap?: (engine: Engine) => Engine
  classes?: SloClasses
  maxQueue?: number
  policyOptions?: Partial<PolicyOptions>
  parseSpecial?: ParseSpecial
  tenancy?: TenantOptions
  clock?: Clock
  watch?: Partial<WatchOptions>
  journal?: JournalOptions
  /** Listen on a free port. */
  listen?: boolean
}

const LIMITS: EngineLimits = {
  kvTokens: 16_384,
  blockTokens: 16,
  maxSequences: 16,
  maxBatchTokens: 512,
  contextTokens: 1024,
  minChunkTokens: 1,
  unifiedKv: true,
}

export async function testServer(options: TestServerOptions = {}) {
  const {
    fake,
    limits: someLimits,
    classes = defaultSloClasses(),
    maxQueue,
    policyOptions = {},
    watch = {},
    journal = {},
    listen,
    parseSpecial = "asked",
    tenancy = {},
    clock,
    engine: given,
    wrap = (engine) => engine,
    ...server
  } = options
  const limits = given?.limits ?? { ...LIMITS, ...someLimits }
  const cost = fake?.cost ?? {
    pieces: [{ step: 1000, tokens: 5 }],
    residualSigma: 0.05,
    fastPassTokens: 1,
    unifiedKv: limits.unifiedKv,
  }
  const engine = wrap(given ?? fakeEngine({ limits, time: "real", outputTokens: 20, ...fake, cost }))
  const tenants = new Tenants(tenancy)
  const driver = new ReplicaDriver({
    engine,
    watch,
    ...(clock !== undefined && { clock }),
    config: {
      limits,
      cost,
      policy: "slos-serve",
      apps: classes.all.length,
      options: policyOptions,
      tenantWeights: tenants.weights,
      ...(maxQueue === undefined ? {} : { maxQueue }),
    },
  })
  const front = new LocalFront(engine, driver, { parseSpecial, tenants })
  const service = new Service({ front, classes, policy: "slos-serve", tenants, journal })
  const host = new ServiceHost(tenants)
  host.ready(service)
  const app = buildServer({ ...server, host })
  await app.ready()
  let url = ""
  if (listen) {
    await app.listen({ port: 0, host: "127.0.0.1" })
    url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
  }
  const close = async () => {
    await service.close()
    app.server.closeAllConnections()
    await app.close()
  }
  return { app, host, service, driver, engine, url, close }
}
