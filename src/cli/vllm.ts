/** `slos-serve vllm`: vLLM with our scheduler in it, the planner that commands it, and a gateway before it. */
import { type Command, Option } from "commander"
import { POLICY_NAMES } from "../core/policy/index.ts"
import { addApiOptions } from "./api-options.ts"
import { addGatewaysOption } from "./backend-options.ts"
import { port, wholeNumber } from "./numbers.ts"
import { createReporter } from "./reporter.ts"
import type { VllmOptions } from "./vllm-options.ts"
import { collect } from "./workload-options.ts"

const EXAMPLES = `
What vLLM is to serve, and how, stands after --, as after \`vllm serve\`. This command adds the scheduler, the middleware and
the port; docs/vllm.md says what works with which version and feature.

Examples:
  # a model on http://127.0.0.1:8080, with a page that shows which SLOs are kept
  slos-serve vllm -- Qwen/Qwen3-8B --max-model-len 16384

  # two GPUs, SLO classes of one's own, reachable from other machines
  slos-serve vllm --config slo-classes.yaml --host 0.0.0.0 -- Qwen/Qwen3-32B --tensor-parallel-size 2

  # vLLM of a virtual environment, its log beside the progress
  slos-serve vllm --vllm ~/venv/bin/vllm --verbose -- ./my-model --served-model-name mine`

export function register(program: Command): void {
  addGatewaysOption(addApiOptions(program.command("vllm")))
    .description("run vLLM with the planner inside it, and a gateway before it")
    .argument("[vllm-arguments...]", "after --: the model and the arguments of `vllm serve`")
    .addOption(new Option("--policy <name>", "scheduling policy").choices(POLICY_NAMES).default("slos-serve"))
    .option("--set <name=value>", "a policy option such as margin=0.1; repeatable", collect, [])
    .option(
      "--vllm <command>",
      "vLLM's executable, or a Python that has it (default: vllm on the PATH, else python3)",
    )
    .option("--vllm-log <file>", "what vLLM and the planner say (default: in the cache folder)")
    .option("--verbose", "show it here, too")
    .option(
      "--metrics-port <number>",
      "port of the planner's own page and /metrics, on this machine (default: a free one; the gateway's are on --port)",
      port,
    )
    .option(
      "--backend-timeout <s>",
      "an answer that does not begin for so long, or stands still for a fifth of it, is lost",
      wholeNumber(1, 86_400),
      300,
    )
    .addHelpText("after", EXAMPLES)
    .action(async (args: string[], options: VllmOptions) => {
      const reporter = await createReporter(options.logLevel, process.stdout.isTTY && process.stderr.isTTY)
      const { serveVllm } = await import("./vllm-run.ts")
      await serveVllm(options, args, reporter)
    })
}
