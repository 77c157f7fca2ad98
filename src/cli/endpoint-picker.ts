/** `slos-serve endpoint-picker`: picks endpoints for an Envoy that is there already, over its external processing. */
import { type Command, InvalidArgumentError, Option } from "commander"
import { UserError } from "../errors.ts"
import { type Address, endpointOf, parseAddress } from "../fleet/picker/endpoints.ts"
import { ENGINE_KINDS, type PickerCommand } from "./endpoint-picker-options.ts"
import { byteSize, port, wholeNumber } from "./numbers.ts"
import { createReporter } from "./reporter.ts"

const EXAMPLES = `
The gateway asks over Envoy's external processing (ext-proc), as the Gateway API Inference Extension has it; see
docs/fleet.md, Endpoint picker, for Envoy's side, and examples/envoy.yaml for one that works.

Examples:
  # two vLLM servers behind an Envoy on this machine
  slos-serve endpoint-picker --endpoint 127.0.0.1:8000 --endpoint 127.0.0.1:8001

  # every pod behind a headless service, on all addresses, as an InferencePool wants it
  slos-serve endpoint-picker --endpoint vllm-headless.default.svc:8000 --host 0.0.0.0

  # vLLM with --scheduling-policy priority: deadlines order its queue as well
  slos-serve endpoint-picker --endpoints-file endpoints.yaml --priority low-first

  # SLO classes of one's own, TLS with a certificate that is renewed while it runs
  slos-serve endpoint-picker --endpoint 10.0.0.1:8000 --config slo-classes.yaml --tls-cert tls.crt --tls-key tls.key`

export function register(program: Command): void {
  program
    .command("endpoint-picker")
    .description("pick endpoints by SLO for an Envoy or a Kubernetes gateway that is there already")
    .option(
      "-e, --endpoint <host:port>",
      "an engine with the OpenAI API; a DNS name stands for all its addresses; once for each",
      endpoint,
    )
    .option(
      "--endpoints-file <file>",
      "a list of them in YAML, read again when it changes; without either, those the gateway names with each request",
    )
    .option("-c, --config <file>", "SLO classes (see examples/slo-classes.yaml)")
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option("-p, --port <number>", "port for the gateway (gRPC); 0 picks a free one", port, 9002)
    .option("--metrics-port <number>", "port of /metrics and /health (HTTP)", port, 9090)
    .option("--no-metrics", "no such port")
    .option("--tls-cert <file>", "serve over TLS with this certificate; read again every minute")
    .option("--tls-key <file>", "its key")
    .option("--tls-client-ca <file>", "gateways must show a certificate that this one signed")
    .addOption(
      new Option(
        "--by <what>",
        "twins: which endpoint would keep the request's SLO, and all others' (for requests whose answers the gateway " +
          "sends here: response_body_mode); load: the fewest requests and prompt tokens under way",
      )
        .choices(["twins", "load"])
        .default("twins"),
    )
    .addOption(
      new Option("--kind <engine>", "how the engines batch; openai: unknown")
        .choices(ENGINE_KINDS)
        .default("vllm"),
    )
    .option(
      "--probe-every <ms>",
      "with twins, how often each engine's health and /metrics are read: what others send there is seen only so; 0: never",
      wholeNumber(0, 60_000),
      1000,
    )
    .option("--probe-tls", "the engines serve TLS")
    .option(
      "--in-flight <n>",
      "most requests at an endpoint at once; more are held here, where they can still go anywhere",
      wholeNumber(1, 1_000_000),
      256,
    )
    .option("--most-held <n>", "most requests held; more get 429", wholeNumber(0, 1_000_000), 2048)
    .option("--held-memory <bytes>", "what their bodies may take together (256m)", byteSize, 256 * 2 ** 20)
    .option("--longest-hold <s>", "a request held for longer gets 429", wholeNumber(1, 86_400), 60)
    .addOption(
      new Option(
        "--late <what>",
        "a held request whose TTFT is over: send it as best effort, or shed it with 429",
      )
        .choices(["send", "shed"])
        .default("send"),
    )
    .addOption(
      new Option(
        "--priority <order>",
        "write the deadline into the body's `priority`: low-first for vLLM with --scheduling-policy priority (others " +
          "refuse the field), high-first for SGLang with --enable-priority-scheduling",
      )
        .choices(["off", "low-first", "high-first"])
        .default("off"),
    )
    .option(
      "--slo-arguments",
      "write each request's SLO into its body's `vllm_xargs`, for a planner inside vLLM",
    )
    .option(
      "--fallbacks <n>",
      "further endpoints named for the gateway's retries; an ORIGINAL_DST cluster takes none",
      wholeNumber(0, 16),
      0,
    )
    .option("--body-limit <bytes>", "largest request body (8m, 512k)", byteSize, 8 * 2 ** 20)
    .option(
      "--drain-timeout <s>",
      "on SIGTERM, wait this long for requests and answers under way",
      wholeNumber(0, 86_400),
      30,
    )
    .option("--log-level <level>", "fatal, error, warn, info, debug, trace or silent")
    .addHelpText("after", EXAMPLES)
    .action(async (options: PickerCommand) => {
      if ((options.tlsCert === undefined) !== (options.tlsKey === undefined))
        throw new UserError("--tls-cert and --tls-key belong together: give both")
      if (options.tlsClientCa !== undefined && options.tlsCert === undefined)
        throw new UserError("--tls-client-ca needs --tls-cert and --tls-key")
      const reporter = await createReporter(options.logLevel, process.stdout.isTTY && process.stderr.isTTY)
      const { runPicker } = await import("./endpoint-picker-run.ts")
      await runPicker(options, reporter)
    })
}

/** One more; the same twice is a slip. */
function endpoint(text: string, before: Address[] = []): Address[] {
  let address: Address
  try {
    address = parseAddress(text)
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`)
  }
  if (before.some((other) => endpointOf(other) === endpointOf(address)))
    throw new InvalidArgumentError("It is given twice.")
  return [...before, address]
}
