/** One of several gateway processes before the vLLM of `slos-serve vllm`. */
import { Service } from "../serve/service.ts"
import type { Siblings } from "../siblings/siblings.ts"
import type { BeforeVllm, GatewayOptions } from "./gateway-setup.ts"
import type { Reporter } from "./reporter.ts"
import { openBackends, warmedGateway } from "./serve-gateway.ts"
import { configOf, tenantsOf } from "./serve-parts.ts"
import { serveFront } from "./serve-run.ts"

export async function serveBeforeVllm(
  options: GatewayOptions,
  { policy, mostApps: apps }: BeforeVllm,
  siblings: Siblings,
  reporter: Reporter,
): Promise<void> {
  const config = configOf(options)
  const { classes } = config
  const tenants = tenantsOf(options, config, siblings)
  const parts = { tenants, config, mostApps: apps, siblings }
  await serveFront(options, parts, reporter, async (host) => {
    const warm = warmedGateway(classes, reporter)
    const gateway = { backends: [...config.backends, ...(options.backend ?? [])], file: undefined }
    const front = await openBackends(gateway, options, { host, tenants, apps, warm, siblings }, reporter)
    return new Service({ front, classes, policy, tenants })
  })
}
