using CsCheck;
using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class MoneyLeftTests
{
    private static CreditPosting Post(MovementType type, long nanos, long position = 0, int atMinute = 0, int? expiresAtMinute = null, long? corrects = null)
        => new(position, type, new(nanos), Now.AddMinutes(atMinute), expiresAtMinute is { } minute ? Now.AddMinutes(minute) : null, corrects);

    private static (long Paid, long[] Grants) Left(params CreditPosting[] postings)
    {
        var left = MoneyLeft.Of(postings);
        return (left.Paid.Nanos, [.. left.Grants.OrderBy(grant => grant.Position).Select(grant => grant.Left.Nanos)]);
    }

    private static readonly CreditPosting[] Rich =
    [
        Post(MovementType.TopUp, 100),
        Post(MovementType.CreditGrant, 10, position: 1),
        Post(MovementType.CreditGrant, 20, position: 2, expiresAtMinute: 60),
        Post(MovementType.CreditGrant, 30, position: 3, expiresAtMinute: 30),
    ];

    [Fact]
    public void Grants_are_used_before_paid_money_and_the_one_that_expires_soonest_first()
    {
        Assert.Equivalent((100L, new long[] { 10, 20, 5 }), Left([.. Rich, Post(MovementType.GpuUsage, -25)]));
        Assert.Equivalent((100L, new long[] { 5, 0, 0 }), Left([.. Rich, Post(MovementType.GpuUsage, -55)]));
        Assert.Equivalent((95L, new long[] { 0, 0, 0 }), Left([.. Rich, Post(MovementType.GpuUsage, -65)]));
    }

    [Fact]
    public void What_is_used_after_a_grant_expired_leaves_it_alone_while_there_is_other_money()
    {
        Assert.Equivalent((100L, new long[] { 10, 0, 30 }), Left([.. Rich, Post(MovementType.GpuUsage, -20, atMinute: 31)]));
        Assert.Equivalent((0L, new long[] { 0, 20, 25 }), Left([.. Rich, Post(MovementType.GpuUsage, -115, atMinute: 61)]));
    }

    [Fact]
    public void What_usage_gives_back_goes_to_where_it_was_taken_last()
    {
        var used = Rich.Append(Post(MovementType.GpuUsage, -58)).ToArray();
        Assert.Equivalent((100L, new long[] { 10, 12, 0 }), Left([.. used, Post(MovementType.GpuUsageCorrection, 20)]));
        // What a grant paid that has expired since comes back as paid money.
        Assert.Equivalent((148L, new long[] { 10, 0, 0 }), Left([.. used, Post(MovementType.GpuFaultCredit, 56, atMinute: 70)]));
    }

    [Fact]
    public void A_card_takes_back_paid_money_first_and_an_expiry_its_own_grant()
    {
        Assert.Equivalent((40L, new long[] { 10, 20, 30 }), Left([.. Rich, Post(MovementType.Refund, -60)]));
        Assert.Equivalent((0L, new long[] { 10, 20, 0 }), Left([.. Rich, Post(MovementType.Dispute, -130)]));
        Assert.Equivalent((100L, new long[] { 10, 0, 30 }), Left([.. Rich, Post(MovementType.CreditExpiry, -20, corrects: 2)]));
        Assert.Equivalent((100L, new long[] { 0, 20, 30 }), Left([.. Rich, Post(MovementType.Reversal, -10, corrects: 1)]));
    }

    [Fact]
    public void What_is_left_in_all_is_always_the_balance_and_nothing_is_below_zero()
        => Gen.Select(Gen.Int[0, 5], Gen.Long[1, 100], Gen.Int[0, 100], Gen.Int[0, 100]).Array[1, 60].Sample(steps =>
        {
            var (left, balance) = (new MoneyLeft(), 0L);
            for (var i = 0; i < steps.Length; i++)
            {
                var (kind, nanos, at, expires) = steps[i];
                var spend = -Math.Min(nanos, balance);
                var posting = kind switch
                {
                    0 => Post(MovementType.TopUp, nanos, i, at),
                    1 => Post(MovementType.CreditGrant, nanos, i, at, expires > 50 ? null : at + expires),
                    2 => Post(MovementType.GpuUsageCorrection, nanos, i, at),
                    3 => Post(MovementType.Refund, spend, i, at),
                    4 => Post(MovementType.Adjustment, spend, i, at),
                    _ => Post(MovementType.GpuUsage, spend, i, at),
                };
                left.Apply(posting);
                balance += posting.Amount.Nanos;
                Assert.Equal(balance, left.Total.Nanos);
                Assert.True(left.Paid >= Money.Zero && left.Grants.All(grant => grant.Left >= Money.Zero && grant.Used >= Money.Zero));
            }
        });
}
