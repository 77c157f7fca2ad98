/** A process of `--gateways`: a whole gateway, which shares its address with the others of its parent. Not a command
 * for people. */
import { UserError } from "../errors.ts"
import type { FromSibling, ToSibling } from "../siblings/messages.ts"
import { Siblings } from "../siblings/siblings.ts"
import type { GatewaySetup } from "./gateway-setup.ts"
import { renewableAs } from "./option-sources.ts"
import { createReporter, type Reporter } from "./reporter.ts"
import { serve } from "./serve-run.ts"
import { serveBeforeVllm } from "./vllm-gateway.ts"

/** Its log is written here; what a start comes to is its parent's to say. */
class GatewayReporter implements Reporter {
  readonly log: Reporter["log"]
  readonly #own: Reporter
  readonly #index: number

  constructor(own: Reporter, index: number) {
    this.#own = own
    this.#index = index
    this.log = own.log
  }

  begin(what: string): void {
    this.log.debug(what)
  }
  progress(what: string): void {
    this.log.debug(what)
  }
  done(what: string): void {
    this.log.debug(what)
  }
  warn(what: string): void {
    this.#own.warn(`gateway ${this.#index}: ${what}`)
  }
  say(lines: readonly string[], values: Record<string, unknown>): void {
    tell({ type: "ready", lines, values })
  }
}

function tell(message: FromSibling, then = () => {}): void {
  if (process.connected) process.send?.(message, undefined, {}, then)
}

async function work({ index, renewable, as }: GatewaySetup, siblings: Siblings): Promise<void> {
  renewableAs(as.options, renewable)
  const terminal = process.stdout.isTTY && process.stderr.isTTY
  const reporter = new GatewayReporter(await createReporter(as.options.logLevel, terminal), index)
  if (as.vllm === null) await serve(as.options, reporter, siblings)
  else await serveBeforeVllm(as.options, as.vllm, siblings, reporter)
}

process.once("message", (message) => {
  const setup = message as GatewaySetup
  const siblings = new Siblings(setup.index, setup.count, (said) => tell(said))
  process.on("message", (told) => siblings.heard(told as ToSibling))
  work(setup, siblings).catch((error: Error) => {
    const user = error instanceof UserError
    const failure = user ? error.message : (error.stack ?? error.message)
    tell({ type: "failed", message: failure, user }, () => process.exit(1))
  })
})
// Its parent tells it: a terminal's Ctrl+C comes to both.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"] as const) process.on(signal, () => {})
