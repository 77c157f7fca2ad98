/** Errors of a compilation, which come later than those of a body. */
import { UserError, userError } from "../errors.ts"

/** Errors of a compilation, which come later, with the field that asked for it; null: there is none. */
export async function naming<T>(param: string | null, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const unnamed = error instanceof UserError && error.code === "invalid_json_schema" && error.param === null
    if (!unnamed || param === null) throw error
    throw userError(
      "invalid_json_schema",
      { message: `Invalid '${param}': ${error.message}` },
      { param, cause: error },
    )
  }
}
