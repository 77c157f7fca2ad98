/** Result files that a command is asked for with --out, --report and the like. */
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import { UserError } from "../errors.ts"

/** Writes a result file, making its folder. */
export function writeResult(path: string, text: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, text)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new UserError(`cannot write ${path} (${code}); choose another file`, { cause: error })
  }
}
