using System.Net.Sockets;
using Npgsql;

namespace Tensormesh.Billing.Tests;

public sealed class AvailabilityTests
{
    private static PostgresException Postgres(string sqlState, string message = "") => new(message, "ERROR", "ERROR", sqlState);

    [Theory]
    [InlineData("08006")]
    [InlineData("53300")]
    [InlineData("57P01")]
    [InlineData("57P03")]
    [InlineData("57014")]
    [InlineData("25006")]
    [InlineData("40P01")]
    [InlineData("25P03")]
    public void A_server_that_cannot_serve_now_is_unavailable(string sqlState)
        => Assert.True(LedgerAvailability.IsUnavailable(Postgres(sqlState)));

    [Theory]
    [InlineData("TM001")]
    [InlineData("TM006")]
    [InlineData("23505")]
    [InlineData("42P01")]
    [InlineData("28P01")]
    public void A_refusal_or_a_bug_is_not_an_outage(string sqlState) => Assert.False(LedgerAvailability.IsUnavailable(Postgres(sqlState)));

    [Theory]
    [InlineData("26000", "prepared statement \"_auto1\" does not exist")]
    [InlineData("42P05", "prepared statement \"_auto1\" already exists")]
    [InlineData("08P01", "bind message supplies 2 parameters, but prepared statement \"_auto1\" requires 1")]
    public void A_statement_that_a_pooler_mistook_is_told_as_that(string sqlState, string message)
    {
        var explained = Poolers.Explain(Postgres(sqlState, message))!;
        Assert.Contains(message, explained.Message, StringComparison.Ordinal);
        Assert.Contains("Max Auto Prepare=0", explained.Message, StringComparison.Ordinal);
        Assert.False(LedgerAvailability.IsUnavailable(explained));
    }

    [Fact]
    public void A_pooler_that_does_not_reach_the_server_is_an_outage()
    {
        var away = Postgres("08P01", "server conn crashed?");
        Assert.Null(Poolers.Explain(away));
        Assert.True(LedgerAvailability.IsUnavailable(away));
    }

    [Fact]
    public void A_lost_connection_is_an_outage_and_a_wrong_program_is_not()
    {
        Assert.True(LedgerAvailability.IsUnavailable(
            new NpgsqlException("refused", new SocketException((int)SocketError.ConnectionRefused))));
        Assert.True(LedgerAvailability.IsUnavailable(new NpgsqlException("pool exhausted", new TimeoutException())));
        Assert.True(LedgerAvailability.IsUnavailable(new TimeoutException()));
        Assert.False(LedgerAvailability.IsUnavailable(new InvalidOperationException()));
        Assert.False(LedgerAvailability.IsUnavailable(new OverflowException()));
    }

    [Fact]
    public async Task The_pool_is_bounded_unless_the_connection_string_says_otherwise()
    {
        await using var bounded = BillingServices.OpenDataSource("Host=db");
        await using var said = BillingServices.OpenDataSource("Host=db;Maximum Pool Size=7;Timeout=3");
        Assert.Equal((40, 5), Sizes(bounded));
        Assert.Equal((7, 3), Sizes(said));

        static (int, int) Sizes(NpgsqlDataSource source)
        {
            var settings = new NpgsqlConnectionStringBuilder(source.ConnectionString);
            return (settings.MaxPoolSize, settings.Timeout);
        }
    }

    [Theory]
    [InlineData("TM001", LedgerRefusal.KeyReusedWithOtherContent)]
    [InlineData("TM002", LedgerRefusal.AccountUnknown)]
    [InlineData("TM003", LedgerRefusal.CurrencyMismatch)]
    [InlineData("TM004", LedgerRefusal.NotBalanced)]
    [InlineData("TM005", LedgerRefusal.AmountOverflow)]
    [InlineData("TM006", LedgerRefusal.InsufficientBalance)]
    [InlineData("TM010", LedgerRefusal.CorrectionUnsound)]
    public void Each_state_of_the_ledger_has_its_refusal(string sqlState, LedgerRefusal refusal)
        => Assert.Equal(refusal, SqlStates.Refusal(sqlState));
}
