#!/usr/bin/env node
/** The command line. A command's file is loaded only when it is used, so that --help is quick. */
import { Command } from "commander"
import { UserError } from "../errors.ts"
import { fail } from "./errors.ts"
import { readSources } from "./option-sources.ts"
import { packageVersion } from "./version.ts"

type CommandFile = { register(program: Command): void }

const COMMANDS: Record<string, { summary: string; load: () => Promise<CommandFile> }> = {
  serve: { summary: "serve a model over the OpenAI API", load: () => import("./serve.ts") },
  vllm: {
    summary: "run vLLM with the planner inside it, and a gateway before it",
    load: () => import("./vllm.ts"),
  },
  "endpoint-picker": {
    summary: "pick endpoints by SLO for an Envoy or a Kubernetes gateway that is there already",
    load: () => import("./endpoint-picker.ts"),
  },
  planner: {
    summary: "plan the steps of vLLM engines that have the plug-in, over a Unix socket",
    load: () => import("./planner.ts"),
  },
  profile: { summary: "measure step times and fit the cost model", load: () => import("./profile.ts") },
  library: {
    summary: "show the llama.cpp library, or compile one for this processor",
    load: () => import("./library.ts"),
  },
  model: { summary: "list, fetch and generate models", load: () => import("./model.ts") },
  replay: {
    summary: "drive a server with a trace and report which SLOs were kept",
    load: () => import("./replay.ts"),
  },
  simulate: {
    summary: "play a workload through a simulated fleet",
    load: () => import("./simulate.ts"),
  },
  plan: {
    summary: "decide admission instances: what is accepted, in which batches",
    load: () => import("./plan.ts"),
  },
  capacity: {
    summary: "find what rate a fleet holds within its SLOs",
    load: () => import("./capacity.ts"),
  },
  config: {
    summary: "check and show a config file, make an API key",
    load: () => import("./config.ts"),
  },
  explain: {
    summary: "say why a request was slow, and which ones missed an objective",
    load: () => import("./explain.ts"),
  },
  advise: {
    summary: "say how many replicas keep the SLOs of a server's last minutes, or of expected load",
    load: () => import("./advise.ts"),
  },
}

async function main(args: string[]): Promise<void> {
  const program = new Command("slos-serve")
    .description("Multi-SLO LLM serving: every iteration decides how many tokens of which request run.")
    .version(packageVersion())
    .showHelpAfterError("(add --help for the options)")
    .exitOverride()
  const chosen = args[0] === "help" ? args[1] : args.find((arg) => !arg.startsWith("-"))
  if (args[0] === "help" && chosen !== undefined && !Object.hasOwn(COMMANDS, chosen))
    throw new UserError(`unknown command '${chosen}'; known: ${Object.keys(COMMANDS).join(", ")}`)
  for (const [name, { summary, load }] of Object.entries(COMMANDS)) {
    if (name === chosen) (await load()).register(program)
    else program.command(name).description(summary)
  }
  for (const command of program.commands) inherit(command)
  if (args.length === 0) program.help()
  await program.parseAsync(args, { from: "user" })
}

/** Subcommands made by register() get the program's behaviour on errors, and options by the environment. */
function inherit(command: Command): void {
  command.exitOverride().showHelpAfterError("(add --help for the options)")
  readSources(command)
  for (const sub of command.commands) inherit(sub)
}

// The reader of the output may have seen enough: `| head -1` is no fault.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? 0 : fail(new UserError(`cannot write the output (${error.code})`)))
})

// The progress is no longer read: the work goes on.
process.stderr.on("error", () => {})

main(process.argv.slice(2)).catch((error: unknown) => {
  process.exitCode = fail(error)
})
