using Npgsql;

namespace Tensormesh.Web;

/// <summary>Whether a failure means that Postgres could not be reached, rather than that it refused.</summary>
internal static class LedgerAvailability
{
    public static bool IsUnavailable(Exception failure) => failure is NpgsqlException and not PostgresException || failure is PostgresException { SqlState: "57P01" or "57P03" };
}
