using CsCheck;
using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

/// <summary>Tokens and GPU time draw on one balance.</summary>
public sealed class TokensDueTests
{
    private static TokensDue Due(string dollars, DateTimeOffset at) => new(Dollars(dollars), at);

    [Fact]
    public void Tokens_leave_less_for_gpu_time()
    {
        var standing = Standing("10.00", intervals: [Interval("2.50", 4)]) with { Tokens = Due("5.00", Now) };
        Assert.Equal((Dollars("5.00"), Dollars("2.50")), (standing.Funds, standing.Balance(Now.AddMinutes(15))));
        Assert.Equal(Now.AddMinutes(30), standing.ExhaustsAt);
    }

    [Fact]
    public void What_ran_before_the_tokens_came_stays_paid_and_what_runs_after_is_not()
    {
        // Half an hour ran and cost $5.00 when tokens of $8.00 came: the money was there until then.
        var standing = Standing("10.00", intervals: [Interval("2.50", 4)]) with { Tokens = Due("8.00", Now.AddMinutes(30)) };
        Assert.Equal(Now.AddMinutes(30), standing.ExhaustsAt);
        Assert.Equal(Dollars("-3.00"), standing.Balance(Now.AddMinutes(30)));
        // Tokens of more than there ever was end it when they came, and GPU time of more than that when it did.
        Assert.Equal(Now.AddMinutes(30), (standing with { Tokens = Due("80.00", Now.AddMinutes(30)) }).ExhaustsAt);
        Assert.Equal(Now.AddMinutes(60), (standing with { Tokens = Due("80.00", Now.AddMinutes(90)) }).ExhaustsAt);
    }

    [Fact]
    public void An_account_that_owes_for_tokens_is_exhausted_also_when_nothing_runs()
    {
        var standing = Standing("1.00") with { Tokens = Due("1.50", Now) };
        Assert.True(standing.IsExhausted(Now));
        Assert.Equal(Dollars("-0.50"), standing.Balance(Now));
        Assert.False((standing with { Posted = Dollars("1.60") }).IsExhausted(Now));
        Assert.IsType<Verdict.Refuse>(BillingGate.EvaluateStart(Request(), standing.In(), Policy, Now));
    }

    [Fact]
    public void Telling_the_ledger_of_tokens_moves_neither_the_end_nor_what_is_left()
        => Gen.Select(Gen.Long[1, 9_000_000_000], Gen.Long[0, 5_000_000_000], Gen.Long[0, 9_000_000_000], Gen.Int[0, 7200]).Sample((rate, posted, tokens, second) =>
        {
            var interval = new AccruingInterval(new(Guid.NewGuid()), Deployment, H100, 1, new(rate), Now, Money.Zero, Now);
            var before = Standing("0.00", intervals: [interval]) with { Posted = new(posted), Tokens = new(new(tokens), Now.AddSeconds(second)) };
            var (end, accepted) = (before.ExhaustsAt, before.Tokens.At!.Value);
            var until = end is { } exhausted ? Instants.Earlier(exhausted, accepted) : accepted;
            var settled = Money.Min(new(tokens), Money.Max(Money.Zero, before.Posted - before.Accrued(until)));
            var after = before with { Posted = before.Posted - settled, Tokens = before.Tokens with { Amount = before.Tokens.Amount - settled } };
            Assert.Equal(end, after.ExhaustsAt);
            Assert.Equal(before.Available(accepted), after.Available(accepted));
            Assert.True(end is not { } at || after.Accrued(at) <= after.Posted, "GPU time that was covered is not any more");
        }, iter: 5_000);
}
