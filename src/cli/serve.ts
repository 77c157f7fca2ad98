/** `slos-serve serve`: fetch, load, profile and warm up a model, then serve it until told to stop. */
import { type Command, Option } from "commander"
import { POLICY_NAMES } from "../core/policy/index.ts"
import { UserError } from "../errors.ts"
import { addApiOptions } from "./api-options.ts"
import { addBackendOptions, checkGatewayOptions } from "./backend-options.ts"
import { drafter, fraction, numberIn, wholeNumber } from "./numbers.ts"
import { createReporter } from "./reporter.ts"
import type { ServeOptions } from "./serve-options.ts"

/** Written out so that --help need not load the model code. */
const DEFAULT_MODEL = "smollm2-135m"

const EXAMPLES = `
Examples:
  # the default model on http://127.0.0.1:8080, with a page that shows which SLOs are kept
  slos-serve serve

  # a model of one's own, SLO classes from a file, reachable from other machines
  slos-serve serve --model hf:owner/repo/file.gguf --config slo-classes.yaml --host 0.0.0.0 --port 18080

  # two tenants that share the server 3 : 1 when it is full; requests without one of their keys get 401
  slos-serve serve --tenant alice=$ALICE_KEY,3 --tenant bob=$BOB_KEY

  # drafts from the prompt and the answer so far: code, summaries, tools
  slos-serve serve --model model.gguf --speculate lookup

  # two replicas in processes of their own behind one router: when one dies, its requests go on at the other
  slos-serve serve --replicas 2

  # no engine here: two servers that compute, told apart by what they can promise
  slos-serve serve --backend http://gpu-1:8000 --backend vllm=http://gpu-2:8000,weight=2

  # two gateways on two machines, each of which knows what the other does (the other has --peer gateway-1)
  slos-serve serve --host 0.0.0.0 --backend http://gpu-1:8000 --peer gateway-2 --peer-secret env:PEERS

  # no model at all: the API with plausible timing
  slos-serve serve --engine fake`

export function register(program: Command): void {
  const command = addServeOptions(program.command("serve"))
  command
    .description("serve a model over the OpenAI API")
    .addHelpText("after", EXAMPLES)
    .action(async (options: ServeOptions) => {
      if (options.backend !== undefined || options.backendFile !== undefined) checkGatewayOptions(command)
      const { kvTokens, context } = options
      if (kvTokens !== undefined && context !== undefined && kvTokens < context)
        throw new UserError(`--kv-tokens ${kvTokens} is less than --context ${context}`)
      if (options.device !== undefined && options.replicas === 1)
        throw new UserError("--device says where the replicas run; say how many with --replicas")
      const reporter = await createReporter(options.logLevel, process.stdout.isTTY && process.stderr.isTTY)
      const { serve } = await import("./serve-run.ts")
      await serve(options, reporter)
    })
}

/** All of them; `config show` has them too. */
export function addServeOptions(command: Command): Command {
  return addApiOptions(addBackendOptions(command))
    .option(
      "-m, --model <name>",
      "a known name (smollm2-135m, tiny), hf:owner/repo/file.gguf, or a path",
      DEFAULT_MODEL,
    )
    .addOption(new Option("--policy <name>", "scheduling policy").choices(POLICY_NAMES).default("slos-serve"))
    .option("--share-prefixes", "prompts reuse the KV of other tenants' prompts, not only their own tenant's")
    .option("-t, --threads <n>", "engine threads (default: physical cores - 1)", wholeNumber(1, 1024))
    .option(
      "--replicas <n>",
      "worker processes, each with its share of threads, sequences and KV tokens; a crash takes one of them",
      wholeNumber(1, 64),
      1,
    )
    .option(
      "--device <list>",
      "where replicas run, in turn: cpu, cpu:<cores> (0-3, 0+2), gpu:<index>; cpu:0-3,cpu:4-7 for two",
    )
    .option(
      "--max-sequences <n>",
      "requests with KV in place at once (default: up to 32, as suits model and memory)",
      wholeNumber(1, 256),
    )
    .option(
      "--context <tokens>",
      "most tokens (prompt + output) of one request (default: 4096, less where the model or the memory has less)",
      wholeNumber(64, 1_000_000),
    )
    .option(
      "--kv-tokens <n>",
      "size of a unified KV pool (default: sequences × context)",
      wholeNumber(64, 1e9),
    )
    .option("--kv-unified", "one KV pool and one pass per step (default on a GPU)")
    .option("--no-kv-unified", "a KV stream per sequence (default on a CPU)")
    .option("--flash-attention", "attention in tiles: faster in long pieces of prompts (default on a GPU)")
    .option(
      "--no-flash-attention",
      "plain attention: faster in short pieces and long contexts (default on a CPU)",
    )
    .addOption(new Option("--kv-type <type>", "KV number format").choices(["f16", "f32", "q8_0"]))
    .option("--max-batch-tokens <n>", "most tokens of one step", wholeNumber(1, 65_536), 512)
    .option(
      "--default-max-tokens <n>",
      "answer length when a request gives none",
      wholeNumber(1, 1_000_000),
      1024,
    )
    .addOption(
      new Option(
        "--parse-special <when>",
        "texts that spell control tokens (<|im_end|>) mean them: never, where a request asks (parse_special), always",
      )
        .choices(["never", "asked", "always"])
        .default("asked"),
    )
    .option("--margin <fraction>", "safety margin on predicted step times, 0.2 = 20%", fraction)
    .option(
      "--max-batch-ms <ms>",
      "longest step while SLO work runs (default: from the profile)",
      wholeNumber(1, 60_000),
    )
    .option(
      "--best-effort-ms <ms>",
      "longest step that best-effort work may make then",
      wholeNumber(1, 60_000),
    )
    .option("--token-budget <n>", "tokens of a step for the vllm policies", wholeNumber(1, 65_536))
    .addOption(
      new Option(
        "--admission <kind>",
        "when an SLO becomes a promise: at the first token, or at admission",
      ).choices(["revocable", "firm"]),
    )
    .option(
      "--speculate <drafter>",
      "draft tokens and verify several at once: lookup (from the request's own text), draft=<model>, or off",
      drafter,
      "off",
    )
    .option(
      "--max-speculation <n>",
      "most tokens verified per request and step, the sure one included",
      wholeNumber(1, 64),
      8,
    )
    .option("--gpu-layers <n>", "layers on the GPU (default: all where there is one)", wholeNumber(0, 10_000))
    .option("--library <name>", "llama.cpp library: auto, cpu, cuda, vulkan, or a folder", "auto")
    .addOption(
      new Option("--engine <name>", "fake: no model, plausible timing")
        .choices(["llama", "fake"])
        .default("llama"),
    )
    .option("--no-profile", "skip the measurement; start from a guess that running corrects")
    .option("--offline", "use only what is in the cache")
    .option(
      "--step-timeout <s>",
      "an engine step that takes longer, and 20 times its prediction, hangs: its requests fail, and more are " +
        "refused until it ends; 0: none ever does",
      numberIn(0, 86_400),
      10,
    )
    .option(
      "--scale-target <share>",
      "share of the requests that is to keep every SLO: how many replicas that takes is in /metrics",
      numberIn(0.5, 0.999),
      0.9,
    )
    .option("--scale-every <s>", "from one forecast to the next; 0: none are made", numberIn(0, 3600), 30)
    .option("--scale-window <s>", "last arrivals that a forecast plays", numberIn(30, 3600), 300)
    .option(
      "--scale-down-after <s>",
      "fewer replicas are wanted only after so long a time in which no more were",
      numberIn(0, 86_400),
      300,
    )
    .option(
      "--cold-start <s>",
      "time from the wish for a replica until it serves: load that clearly rises is foreseen so far ahead; 0: it is not",
      numberIn(0, 3600),
      0,
    )
    .option("--most-replicas <n>", "no more are wanted", wholeNumber(1, 1024), 64)
}
