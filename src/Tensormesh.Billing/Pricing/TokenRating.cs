namespace Tensormesh.Billing;

/// <summary>Tokens of one model, summed. <paramref name="Cached"/> is part of <paramref name="Input"/>: it was served from the KV cache.</summary>
public readonly record struct TokenTotals(long Input, long Cached, long Output)
{
    public static TokenTotals operator +(TokenTotals left, TokenTotals right) => checked(
        new TokenTotals(left.Input + right.Input, left.Cached + right.Cached, left.Output + right.Output));

    public static TokenTotals operator -(TokenTotals left, TokenTotals right) => checked(
        new TokenTotals(left.Input - right.Input, left.Cached - right.Cached, left.Output - right.Output));
}

/// <summary>
/// Cumulative rating of tokens: price the running total of an account, a model and a price version, and charge the difference, so that nothing is rounded
/// but once. Rates are nano-dollars per million tokens, amounts whole nano-dollars, rounded down. <c>tokens_due</c> in usage_functions.sql is the same.
/// </summary>
public static class TokenRating
{
    public const long TokensPerRate = 1_000_000;

    /// <summary><c>floor(((input - cached) x input rate + cached x cached rate + output x output rate) / 1,000,000)</c>.</summary>
    /// <exception cref="OverflowException">The amount does not fit 64 bits of nano-dollars.</exception>
    public static Money Due(TokenTotals total, TokenPrice price) => new(checked((long)(
        ((Int128)(total.Input - total.Cached) * price.InputPerMillion.Nanos + (Int128)total.Cached * price.CachedPerMillion.Nanos
            + (Int128)total.Output * price.OutputPerMillion.Nanos) / TokensPerRate)));

    /// <summary>What a lower price for cached tokens saved, exact but for the last nano: cached x (input rate - cached rate). Below zero where a price
    /// list makes cached tokens dearer.</summary>
    public static Money Saved(long cached, TokenPrice price) => new(checked((long)(
        (Int128)cached * (price.InputPerMillion.Nanos - price.CachedPerMillion.Nanos) / TokensPerRate)));
}
