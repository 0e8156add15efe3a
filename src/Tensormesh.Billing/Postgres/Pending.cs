namespace Tensormesh.Billing;
public static class StandingChannel { public const string Name = "tensormesh_standing"; }
public static class LedgerAvailability { public static bool IsUnavailable(Exception fault) => throw new NotImplementedException(); }
public static class Migrator { public static Task MigrateAsync(Npgsql.NpgsqlDataSource dataSource, CancellationToken cancellation) => throw new NotImplementedException(); }
