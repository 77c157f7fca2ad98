/** `slos-serve planner`: plans the steps of vLLM engines that have our plug-in, over a Unix socket. */
import { type Command, Option } from "commander"
import { POLICY_NAMES } from "../core/policy/index.ts"
import { UserError } from "../errors.ts"
import { numberIn, port, wholeNumber } from "./numbers.ts"
import type { PlannerCommand } from "./planner-options.ts"
import { policyOptions } from "./policy-options.ts"
import { createReporter } from "./reporter.ts"
import { collect } from "./workload-options.ts"

const EXAMPLES = `
An engine connects with the plug-in slos-serve-vllm; it finds the planner by the same path (docs/vllm.md). Where no planner
is, or where it is late, vLLM schedules by itself.

Examples:
  # one planner for the engines of this machine, with the page and the metrics on http://127.0.0.1:9091
  slos-serve planner --socket /run/slos-serve/planner.sock --metrics-port 9091

  # SLO classes and tenants of one's own
  slos-serve planner --socket planner.sock --config slo-classes.yaml

  # another policy, with an option of it
  slos-serve planner --socket planner.sock --policy edf-drop --set margin=0.1

  # keep what happened, and make every plan again
  slos-serve planner --socket planner.sock --record planner.rec
  slos-serve planner replay planner.rec`

const REPLAY_EXAMPLES = `
Examples:
  # exit code 0: each plan is what the planner decided then; 1: it names the first that is not
  slos-serve planner replay planner.rec`

export function register(program: Command): void {
  const command = program.command("planner")
  command
    .description("plan the steps of vLLM engines that have the plug-in, over a Unix socket")
    .option("-s, --socket <path>", "Unix socket to listen on; only this user's processes may connect")
    .option("-c, --config <file>", "SLO classes and tenants (see examples/slo-classes.yaml)")
    .addOption(new Option("--policy <name>", "scheduling policy").choices(POLICY_NAMES).default("slos-serve"))
    .option("--set <name=value>", "a policy option such as margin=0.1; repeatable", collect, [])
    .option(
      "--metrics-port <number>",
      "port of /metrics, /health, /v1/slo/status, the page, and of gateways that ask for offers (HTTP); 0 picks a free one " +
        "(default: none)",
      port,
    )
    .option("--host <address>", "address of that port", "127.0.0.1")
    .option(
      "--max-lag <ms>",
      "what engines wait at least for a plan that is not there when its step begins",
      numberIn(0, 10_000),
      5,
    )
    .option("--record <file>", "keep all that happened and was decided, for `planner replay`")
    .option(
      "--exit-when-idle <s>",
      "end when no engine has been connected for so long; 0: never",
      wholeNumber(0, 86_400),
      0,
    )
    .option("--log-level <level>", "fatal, error, warn, info, debug, trace or silent")
    .addHelpText("after", EXAMPLES)
    .action(async (options: PlannerCommand) => {
      const { socket } = options
      if (socket === undefined)
        throw new UserError(
          "--socket is missing; give the path that the plug-in has, such as --socket planner.sock",
        )
      const set = policyOptions(options.set)
      const reporter = await createReporter(options.logLevel, process.stdout.isTTY && process.stderr.isTTY)
      const { runPlanner } = await import("./planner-run.ts")
      await runPlanner({ ...options, socket }, set, reporter)
    })
  command
    .command("replay")
    .description("make every plan of a recording again, and say whether it is the same")
    .argument("<file>", "what --record wrote")
    .option("--json", "print the result as JSON")
    .addHelpText("after", REPLAY_EXAMPLES)
    .action(async (file: string, options: { json?: boolean }) => {
      const { replayFile } = await import("./planner-replay.ts")
      await replayFile(file, options.json === true)
    })
}
