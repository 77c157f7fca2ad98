/** Runs the tests of clients for Python: node test/clients/python/run.ts [pytest's arguments].
 * Without a package index, or a Python, it says so and is done: nothing of ours is wrong then. */
import { join } from "node:path"
import {
  madeOrNull,
  type PythonEnvironment,
  pytestPasses,
  pythonEnvironment,
  requirements,
} from "../../python-environment.ts"
import { clientServer } from "../server.ts"

const HERE = import.meta.dirname
const RECIPE = requirements("python-clients", join(HERE, "requirements.txt"), "about 500 MB, a minute")
const say = (line: string) => console.log(`test:clients: ${line}`)

async function passes(environment: PythonEnvironment): Promise<boolean> {
  const server = await clientServer()
  const env = { CLIENTS_URL: server.url, CLIENTS_KEY: server.key, CLIENTS_MODEL: server.model }
  try {
    return await pytestPasses(environment, HERE, { env, args: process.argv.slice(2) })
  } finally {
    await server.close()
  }
}

const environment = madeOrNull("clients for Python", () => pythonEnvironment(RECIPE, say), say)
if (environment !== null && !(await passes(environment))) process.exitCode = 1
