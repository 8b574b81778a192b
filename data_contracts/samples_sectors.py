"""Sectors of the made-up park. The figures are invented: they give variety, and describe no real sector."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sector:
    """One sector.

    Attributes:
        code: GB/T 4754-2017, section letter and digits.
        share: of the park's enterprises, in parts.
        sales_cny: yearly sales of a middling firm.
        sales_per_head_cny: yearly sales per person.
        vat_bp: rate of VAT for general taxpayers.
        peak: calendar month of most sales, 1 to 12.
        swing: how far sales go up and down within the year, 0 to 1.
        tech: share of technology firms.
    """

    code: str
    share: int
    sales_cny: int
    sales_per_head_cny: int
    vat_bp: int
    peak: int
    swing: float
    tech: float


SECTORS = (
    Sector("A0149", 1, 4_000_000, 250_000, 900, 10, 0.6, 0.05),
    Sector("C1392", 3, 12_000_000, 600_000, 1300, 1, 0.3, 0.15),
    Sector("C2710", 3, 20_000_000, 650_000, 1300, 11, 0.1, 0.7),
    Sector("C3499", 8, 14_000_000, 500_000, 1300, 11, 0.15, 0.4),
    Sector("C3670", 5, 18_000_000, 550_000, 1300, 12, 0.15, 0.45),
    Sector("C3962", 9, 22_000_000, 600_000, 1300, 10, 0.2, 0.75),
    Sector("D4430", 1, 30_000_000, 900_000, 900, 1, 0.3, 0.1),
    Sector("E4813", 4, 25_000_000, 800_000, 900, 12, 0.35, 0.05),
    Sector("E5011", 3, 8_000_000, 500_000, 900, 11, 0.25, 0.05),
    Sector("F5137", 8, 20_000_000, 2_000_000, 1300, 11, 0.2, 0.03),
    Sector("F5179", 6, 24_000_000, 2_200_000, 1300, 12, 0.2, 0.05),
    Sector("F5292", 4, 7_000_000, 700_000, 1300, 11, 0.35, 0.05),
    Sector("G5430", 3, 10_000_000, 500_000, 900, 12, 0.15, 0.05),
    Sector("G5920", 2, 9_000_000, 450_000, 600, 11, 0.2, 0.1),
    Sector("G6020", 1, 8_000_000, 300_000, 600, 11, 0.4, 0.05),
    Sector("H6110", 1, 6_000_000, 250_000, 600, 8, 0.4, 0.0),
    Sector("H6210", 3, 4_000_000, 220_000, 600, 2, 0.25, 0.0),
    Sector("I6420", 4, 9_000_000, 450_000, 600, 11, 0.15, 0.6),
    Sector("I6513", 14, 7_000_000, 400_000, 600, 12, 0.3, 0.8),
    Sector("I6550", 5, 6_000_000, 400_000, 600, 12, 0.25, 0.6),
    Sector("K7020", 1, 7_000_000, 200_000, 600, 6, 0.05, 0.0),
    Sector("L7249", 5, 5_000_000, 350_000, 600, 12, 0.2, 0.1),
    Sector("M7320", 4, 6_000_000, 350_000, 600, 12, 0.35, 0.85),
    Sector("M7519", 3, 5_000_000, 350_000, 600, 12, 0.25, 0.6),
    Sector("N7722", 2, 9_000_000, 450_000, 600, 10, 0.2, 0.3),
    Sector("O8171", 2, 3_000_000, 250_000, 600, 7, 0.2, 0.0),
    Sector("R8710", 1, 3_000_000, 250_000, 600, 5, 0.3, 0.05),
)
